"""The work tree as a commit, the way it is usually written with GitPython: on the user's own index."""

import time

import git
from serve import serve


def snapshot(root):
    start = time.perf_counter()
    repository = git.Repo(root)
    changed = [change.a_path for change in repository.index.diff(None)]
    repository.index.add(changed + repository.untracked_files)
    commit = repository.index.commit("snapshot")
    seconds = time.perf_counter() - start
    tree = commit.tree.hexsha
    repository.close()
    return {"seconds": seconds, "tree": tree}


serve({"snapshot": snapshot})
