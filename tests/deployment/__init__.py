"""The programs of a federation as processes of their own on this machine: killed, cut off, lied to, and watched."""
