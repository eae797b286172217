"""Every kind of geometry field, and a table with what GEOS does not read."""

from django.contrib.gis.db import models


class Place(models.Model):
    """Each field may be null."""

    name = models.CharField(max_length=100)
    point = models.PointField(null=True)
    area = models.PolygonField(null=True, srid=3857)
    shape = models.GeometryField(null=True, srid=32632)
    parts = models.GeometryCollectionField(null=True)
    peak = models.PointField(null=True, dim=3)
    position = models.PointField(null=True, geography=True)
    picture = models.RasterField(null=True)

    def __str__(self) -> str:
        return self.name


class Sketch(models.Model):
    """May have curves, which only SQL writes and reads."""

    name = models.CharField(max_length=100)
    drawing = models.GeometryField(null=True, srid=32632)

    def __str__(self) -> str:
        return self.name
