"""NXP's MBoot (Kinetis bootloader, MCU bootloader, flashloader of i.MX RT, ISP of LPC parts), on serial lines and on CAN."""
