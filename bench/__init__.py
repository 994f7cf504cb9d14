"""The benchmark: keyfob, SoftHSM 2 and NSS's softoken through the same C program, in the same run, in turns."""
