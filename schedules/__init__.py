"""What may be searched: design spaces, knobs and the graph rewrites that make them possible. Pure TVM."""
