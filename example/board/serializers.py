"""What a subscriber gets for each row."""

from rest_framework import serializers

from board.models import Cell, Label, Task


class LabelSerializer(serializers.ModelSerializer[Label]):
    """A label."""

    class Meta:
        model = Label
        fields = ("id", "name", "hue")


class TaskSerializer(serializers.ModelSerializer[Task]):
    """A task with its labels. Each of them is another row, and shows on many cards."""

    labels = LabelSerializer(many=True, read_only=True)

    class Meta:
        model = Task
        fields = ("id", "title", "status", "points", "labels", "updated_at")


class CellSerializer(serializers.ModelSerializer[Cell]):
    """A cell of the grid."""

    class Meta:
        model = Cell
        fields = ("id", "x", "y", "value")
