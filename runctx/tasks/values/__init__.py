"""What is a task, or a result, once it leaves its process?"""
