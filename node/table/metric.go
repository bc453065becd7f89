package table

import (
	"village/node/api"
	"village/protocol/figure"
)

// Kind is that of a report's target.
func Kind(r api.Report) figure.Kind { return figure.KindOf(len(r.AllRows.Federated.Classes) == 0) }

// HasPersonal tells whether any node has evaluated a model with a part of its own.
func HasPersonal(r api.Report) bool { return r.AllRows.Personal.Rows > 0 }
