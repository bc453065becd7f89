package evidence

// What the tests need to know of the form of a directory.
var VectorFile = vectorFile

const MaxEntries = maxEntries
