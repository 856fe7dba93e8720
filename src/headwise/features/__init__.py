"""Features: the vectors of a tap, extracted once; and the table of them that users take away."""
