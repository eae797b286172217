"""djangorestframework-gis on PostGIS: geometries and rasters in rows, and their GeoJSON in bodies."""
