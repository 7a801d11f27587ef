"""How runs are shown: in notebooks by `page`, in the terminal by `terminal`."""
