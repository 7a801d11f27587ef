"""What was a configuration told on the command line?"""
