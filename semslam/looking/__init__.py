"""Maps looked at by people: windows, pages, films, plans."""
