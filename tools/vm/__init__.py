"""A guest with Debian's kernel, booted under QEMU without KVM, for hosts whose own kernel has no CAN or USB drivers.

`kernel` gets the kernel package and unpacks it, `initramfs` packs what the guest starts from, `guest` runs one command
in it, `host` asks whether the host itself would do. All of it needs no root.
"""
