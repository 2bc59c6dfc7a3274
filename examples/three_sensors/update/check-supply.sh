#!/bin/sh
# A step for the host, before anything is flashed. Speaks the contract of microsoft/script:1, apiVersion 1.1: told what
# to do by --action, it leaves its verdict in the file that --result-file names.
action= ; result=
while [ $# -gt 0 ]; do
  case "$1" in
    --action) action=$2; shift ;;
    --result-file) result=$2; shift ;;
  esac
  shift
done

case "$action" in
  is-installed) code=901 ;;   # not installed: a check is made anew each time
  download)     code=500 ;;
  install)      code=600 ;;   # a real host would measure its supply here
  apply)        code=700 ;;
  cancel)       code=800 ;;
  *)            exit 1 ;;
esac
printf '{"resultCode": %d, "extendedResultCode": 0, "resultDetails": "the supply is steady"}\n' "$code" > "$result"
