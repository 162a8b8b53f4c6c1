"""Techniques as written, resolved: parameters with defaults filled in, and which other one it may be written for."""

from dataclasses import replace
from operator import attrgetter

from time_ray import merging
from time_ray.core.errors import UserError
from time_ray.core.experiment import TechniqueSpec
from time_ray.core.recipe import ResolvedTechnique
from time_ray.core.strategies import taken_by
from time_ray.merging.declaration import holds

_LOW, _HIGH = attrgetter("low"), attrgetter("high")


def resolved_technique(spec: TechniqueSpec) -> ResolvedTechnique:
    """A technique with all its parameters. Raises UserError with every fault of these."""
    faults: list[str] = []
    if "weight" in spec.params:
        owners = " or ".join(taken_by("weight"))
        faults.append(f"weight belongs to the running merge; write init or deploy as {{name: {owners}, weight: ...}}")
    try:
        params = merging.normalise(spec.name, spec.params, "merge")
        pair_params = merging.normalise(spec.name, spec.params, "pair")
    except merging.MergeError as error:
        raise UserError(*faults, *error.faults) from error
    UserError.unless_none(faults)
    row = merging.TECHNIQUES[spec.name]
    filled = row.fill(spec.params)
    other = row.same_as(filled)
    if other is not None:
        resolved = resolved_technique(TechniqueSpec(name=other, params={}))
        return replace(
            resolved, label=spec.label, weighted=False, weighs_experts=False, share=0.5, written_as=spec.name
        )
    pair_params.pop("weight", None)  # the strategy's, and part of the recipe beside the technique
    return ResolvedTechnique(
        spec.name,
        spec.label,
        row.version,
        params,
        pair_params,
        weighted=row.takes_weight,
        identity_of_one=row.single_is_identity(params),
        weighs_experts=row.takes_weight and "weights" in row.parameters,
        needs_moments=row.needs_moments,
        needs_agreement=holds(row.needs_agreement, filled),
    )


def check_ranges(spec: TechniqueSpec) -> None:
    """Its ranges are allowed. Raises UserError with every bound of one that its parameter does not allow."""
    faults: list[str] = []
    for bound in (_LOW, _HIGH) if spec.ranges else ():
        ends = {name: bound(found) for name, found in spec.ranges.items()}
        try:
            merging.normalise(spec.name, {**spec.fixed.params, **ends}, "merge")
        except merging.MergeError as error:
            faults += error.faults
    UserError.unless_none(dict.fromkeys(faults))
