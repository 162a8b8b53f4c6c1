"""A rule on the matrices in tensors; all other tensors move by the mean of the task vectors."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.matrices import every_matrix, linear_layers
from time_ray.merging.pieces import State
from time_ray.merging.rule import ExpertPiece, FinishContext, VectorRule


class MatrixRule(VectorRule):
    """λ · what the technique makes of the matrices τ_i; λ · mean τ elsewhere."""

    def __init__(self, scaling: float | None, factors: Mapping[str, float | None] | None, which: str) -> None:
        """`which` matrices: `all` as most authors have it, or `linear` layers (then 0-d tensors are averaged)."""
        super().__init__(scaling, factors)
        self.matrices = {"all": every_matrix, "linear": linear_layers}[which]
        self.scalars = Average() if which == "linear" else None

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: that of the matrices, or Σ τ_i."""
        vector = new.task_vector()
        stack = self.matrices(vector, new.piece.entry)
        if stack is not None:
            return self.add_matrices(state, stack)
        return [vector] if state is None else [state[0].add_(vector)]

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The merged matrices, or the mean."""
        if self.matrices(context.base_values, context.piece.entry) is None:
            return state[0] / context.num_experts
        return self.merged_matrices(state, context).reshape(-1)

    @abstractmethod
    def add_matrices(self, state: State | None, new: Tensor) -> State:
        """The state that also holds this expert's matrices [parts, rows, columns], which may be kept."""

    @abstractmethod
    def merged_matrices(self, state: State, context: FinishContext) -> Tensor:
        """The merged matrices [parts, rows, columns] before scaling."""
