#!/bin/sh
# For the script handler of Azure Device Update's agent (microsoft/script:1, apiVersion 1.1): flashes the component in
# context with the file beside this one. How proxyflash is called says the file below, a word on each line.
set -u
conf=${PROXYFLASH_ADU_CONF:-/etc/proxyflash/adu.conf}
given=$#
if ! [ -r "$conf" ]; then
  printf '%s\n' "$conf can't be read; it is written by: proxyflash adu enumerator" >&2
  exit 1
fi
while IFS= read -r word || [ -n "$word" ]; do
  case $word in
    '' | '#'*) ;;
    *) set -- "$@" "$word" ;;
  esac
done <"$conf"
case $0 in
  */*) folder=${0%/*} ;;
  *) folder=. ;;
esac
set -- "$@" adu act --image "$folder"/@IMAGE@
while [ "$given" -gt 0 ]; do
  first=$1
  shift
  set -- "$@" "$first"
  given=$((given - 1))
done
exec "$@"
