"""How are values computed from other values of a configuration, after everything is overridden?"""
