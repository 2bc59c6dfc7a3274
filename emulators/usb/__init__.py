"""The emulated USB, and the ways to it: pyusb's back end, USB/IP, Linux's virtual host."""
