# told.sh off|on NAME, told.sh cut|join BUS: said to the process that serves the parts, by one caller at a time.
exec 9>"$PROXYFLASH_CONTROL.lock" && flock 9
echo "$1 $2" >"$PROXYFLASH_CONTROL" && read -r answer <"$PROXYFLASH_CONTROL.answer" && echo "$answer" && [ "$answer" = ok ]
