"""Pure functions on arrays: choosing, resampling, clusters, ranks, intervals."""
