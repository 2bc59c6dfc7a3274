#!/bin/busybox sh
# The guest's first process. It says on the port "control" how far it is, one line each: "boot", "ready", "alive" every few
# seconds, "failed WHY", "exit STATUS". The command's two outputs have a port each, whose end is marked by the text
# $END. /job/settings and /job/command come with each run.
[ $$ = 1 ] && [ -f /job/settings ] || exit 1  # for a guest alone: anywhere else this would mount over what is there
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /lower /upper /new
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
. /job/settings

load() { insmod "/modules/$1" || echo "proxyflash: insmod $1 failed"; }

# Until the first port is there, messages can only go to the console.
while read -r module; do
  load "$module"
  [ "$module" = virtio_console.ko ] && break
done </modules/order
tries=0
until set -- /dev/vport*p1 && [ -c "$1" ] && [ -c "${1%1}2" ] && [ -c "${1%1}3" ]; do
  tries=$((tries + 1))
  [ $tries -gt 1000 ] && echo "proxyflash: the virtio ports are missing" && poweroff -f
  usleep 20000
done
port=${1%1}
exec 3>"${port}1"
echo boot >&3
while sleep 5; do echo alive; done >&3 &

fail() {
  echo "failed $*" >&3
  while :; do sleep 60; done
}

seen=
while read -r module; do
  [ "$seen" ] && load "$module"
  [ "$module" = virtio_console.ko ] && seen=1
done </modules/order

# The host's root, read-only, under a file system in memory.
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=1048576,cache=loose host /lower || fail "the host's root can't be mounted"
mount -t tmpfs -o mode=755 upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /new || fail "the overlay can't be mounted"
mount -t devtmpfs dev /new/dev
mount -t sysfs sys /new/sys
mount -t configfs config /new/sys/kernel/config
mount -t debugfs debug /new/sys/kernel/debug
mkdir -p /new/dev/pts /new/dev/shm /new/run /new/tmp
mount -t devpts -o mode=620,ptmxmode=666 devpts /new/dev/pts
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t tmpfs -o mode=755 run /new/run
ln -sf /proc/self/fd /new/dev/fd
ln -sf /proc/self/fd/0 /new/dev/stdin
ln -sf /proc/self/fd/1 /new/dev/stdout
ln -sf /proc/self/fd/2 /new/dev/stderr
if [ "$ARTEFACTS" ]; then
  mkdir -p "/new$ARTEFACTS"
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576 artefacts "/new$ARTEFACTS" || fail "the artefacts' folder can't be mounted"
fi
hostname "$NAME"
ip link set lo up
ip link add dev vcan0 type vcan && ip link set vcan0 mtu 72 && ip link set vcan0 up
mkdir -p /new/run/proxyflash
cp /job/command /new/run/proxyflash/command

mkfifo /out /err
{ cat /out; printf %s "$END"; } >"${port}2" &
{ cat /err; printf %s "$END"; } >"${port}3" &
echo ready >&3
# A process namespace of its own: what the command leaves behind ends with it, and with that its outputs.
unshare -f -p sh -c '
  mount -t proc proc /new/proc
  # In a subshell, so that "Killed" is said on the console and not among the outputs of the command.
  (exec env -i chroot /new /bin/sh /run/proxyflash/command) </dev/null >/out 2>/err 3>&-
  echo "exit $?" >&3
'
while :; do sleep 60; done
