"""What lies on disk while a map goes on?"""
