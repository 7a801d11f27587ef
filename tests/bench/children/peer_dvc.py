"""A folder's content by DVC's Python API, which remembers the digest of each file by its stat."""

import time

from dvc_data.hashfile.build import build
from dvc_data.hashfile.db.local import LocalHashFileDB
from dvc_data.hashfile.state import State
from dvc_objects.fs.local import LocalFileSystem
from serve import serve

files = LocalFileSystem()


def check(path, memory):
    start = time.perf_counter()
    state = State(path, tmp_dir=f"{memory}/state")
    database = LocalHashFileDB(files, f"{memory}/objects", state=state)
    meta = build(database, path, files, "md5", dry_run=True)[1]
    state.close()
    return {"seconds": time.perf_counter() - start, "files": meta.nfiles}


serve({"check": check})
