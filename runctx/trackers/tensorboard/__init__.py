"""How are runs looked at in TensorBoard? As folders of event files, which it finds and follows by itself."""

from __future__ import annotations

from .tracker import TensorBoard

__all__ = ["TensorBoard"]
