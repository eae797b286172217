-- Of the images of a row, and of its context. What is small is not compressed; what is large may be many times larger than it is stored.
SELECT coalesce(octet_length(context), 0) + coalesce(sum(CASE WHEN pg_column_size(image) < 1500 THEN pg_column_size(image)
                         ELSE octet_length(image::text) END), 0) AS bytes
FROM (VALUES (old), (new)) AS images (image)
