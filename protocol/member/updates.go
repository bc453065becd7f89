package member

// Updates calls yield for every update in the machine, the older ones of a node first:
// given to [Rounds.Take], they make the same machine anew.
func (r *Rounds) Updates(yield func(from int, u *Update)) {
	for _, p := range r.peers {
		for i := len(p.updates) - 1; i >= 0; i-- {
			yield(p.place, p.updates[i])
		}
	}
}

// Owing appends the places of the nodes whose update of the own round is not
// held, though the own round has ended and the next is from it.
func (r *Rounds) Owing(places []int) []int {
	own := r.Round()
	if r.busy || own == 0 || own == r.cfg.Rounds {
		return places
	}
	for _, e := range r.neighbours(own) {
		if p := r.peer(e.Node); p.part && p.owes(own) {
			places = append(places, e.Node)
		}
	}
	return places
}
