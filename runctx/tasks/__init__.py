"""How does `run.map` do many tasks, on many processes and machines, under one lock?"""
