"""Observers whose bodies are GeoJSON."""

from typing import Any

from django.contrib.gis.db.models.functions import AsWKT
from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import SerializerMethodField
from rest_framework_gis.serializers import GeoFeatureModelSerializer, GeometrySerializerMethodField

from tests.packages.consumers import TellingConsumer
from tests.packages.places.models import Place, Sketch


class PlaceSerializer(GeoFeatureModelSerializer):
    """A feature: GeoJSON has neither the SRID nor each digit, so the bytes are there too."""

    box = GeometrySerializerMethodField()
    exactly = SerializerMethodField()
    picture = SerializerMethodField()

    class Meta:
        model = Place
        geo_field = "point"
        fields = ("id", "name", "area", "shape", "parts", "peak", "position", "box", "exactly", "picture")

    def get_box(self, instance: Place) -> Any:
        """A geometry that is computed of another one; the field refuses an empty point."""
        return None if instance.area is None or instance.area.empty else instance.area.envelope

    def get_exactly(self, instance: Place) -> Any:
        """The bytes of each geometry."""
        names = ("point", "area", "shape", "parts", "peak", "position")
        values = {name: getattr(instance, name) for name in names}
        return {name: None if value is None else value.hexewkb.decode() for name, value in values.items()}

    def get_picture(self, instance: Place) -> Any:
        """What a raster is made of."""
        raster = instance.picture
        bands = raster and [[band.nodata_value, bytes(band.data(as_memoryview=True)).hex()] for band in raster.bands]
        return raster and [raster.srid, raster.geotransform, raster.width, bands]


class PlacesConsumer(TellingConsumer):
    """See the module."""

    @model_observer(Place, serializer_class=PlaceSerializer)
    async def places(self, message: Any, **kwargs: Any) -> None:
        """Features."""
        await self.tell("places", message, **kwargs)

    @model_observer(Sketch)
    async def keys(self, message: Any, **kwargs: Any) -> None:
        """Keys alone."""
        await self.tell("keys", message, **kwargs)

    @model_observer(Sketch)
    async def sketches(self, message: Any, **kwargs: Any) -> None:
        """What is deferred, and what reading it gives."""
        await self.tell("sketches", message, **kwargs)

    @sketches.serializer
    def sketches(self, instance: Sketch, action: Any, **kwargs: Any) -> Any:
        """See above; and what the database says of the row."""
        deferred = sorted(instance.get_deferred_fields())
        try:
            drawing = instance.drawing and instance.drawing.wkt
        except Exception as error:
            drawing = type(error).__name__
        text = Sketch.objects.annotate(text=AsWKT("drawing")).values_list("text", flat=True).filter(pk=instance.pk)
        return {"name": instance.name, "deferred": deferred, "drawing": drawing, "stored": text.first()}


CONSUMERS = {"places": PlacesConsumer}
