"""Commands that make maps, and the doctor that looks at a recording first."""
