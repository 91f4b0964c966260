"""Makes the anchors that the setting names."""

from ops.runtime.db import Engine
from schemas.config.anchors import AnchorPlace, read_anchors
from workers.sealer.anchor import Anchor
from workers.sealer.anchoring import Anchoring, Anchorings, Files
from workers.sealer.board import Board
from workers.sealer.time_stamps import TimeStamps
from workers.sealer.witnesses import Witness
from workers.sealer.write_once import WriteOnce


def open_anchors(setting: str, engine: Engine, board: Board, files: Files) -> Anchorings:
    """Start a thread for each place. Raises `Misconfigured` for a key or a certificate that cannot be read."""
    named = [(each, _anchor(each)) for each in read_anchors(setting)]
    return Anchorings([Anchoring(each, anchor, engine, board, files) for each, anchor in named])


def _anchor(named: AnchorPlace) -> Anchor:
    if named.kind == "rfc3161":
        return TimeStamps(named.place, named.trusts)
    if named.kind == "witness":
        return Witness(named.place, named.trusts)
    return WriteOnce(named.place)
