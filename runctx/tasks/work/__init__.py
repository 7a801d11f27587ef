"""Who does the tasks?"""
