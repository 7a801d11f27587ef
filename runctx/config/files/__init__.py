"""What do configuration files say: one over a class, one over another, one per group?"""
