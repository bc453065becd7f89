package sim

import (
	"math"
	"slices"

	"village/protocol/agree"
	"village/protocol/member"
	"village/protocol/mixing"
	"village/protocol/record"
	"village/protocol/task"
)

// A hostile node keeps to the protocol but for its updates, and counts honestly
// on its own test rows. Nobody waits for it to come to the end.

// How the attacks are tuned.
const (
	scaledBy   = 10  // see Scaled
	deviations = 1.5 // see ALittle
)

// attack is what a hostile node publishes instead of what it has learnt. What
// does not pass the check of the others is for them alone: the node itself goes
// on with what it has learnt.
func (n *node) attack(e member.Train, learnt []float64) []float64 {
	var params []float64
	switch n.Attack {
	case SignFlip:
		params = along(e.From, learnt, -1)
	case Scaled:
		params = along(e.From, learnt, scaledBy)
	case ALittle:
		// Of a search, others may have come further.
		params = aLittle(slices.DeleteFunc(n.machine.others(n), func(x []float64) bool { return len(x) != len(learnt) }))
	case NaN:
		params = []float64{math.NaN()}
	}
	n.bad = slices.ContainsFunc(params, func(x float64) bool { return !(math.Abs(x) < mixing.MaxParameter) })
	if n.bad || params == nil {
		return learnt
	}
	return params
}

// along goes so many times from one vector to another.
func along(from, to []float64, times float64) []float64 {
	params := make([]float64, len(to))
	for i := range params {
		params[i] = from[i] + float64(times*(to[i]-from[i]))
	}
	return params
}

// aLittle is the mean of the others' updates less some of their standard
// deviations: inside of what they spread over, and so hard to tell from them.
func aLittle(others [][]float64) []float64 {
	if len(others) == 0 {
		return nil
	}
	params := make([]float64, len(others[0]))
	for i := range params {
		mean, squares := 0.0, 0.0
		for _, x := range others {
			mean += x[i] / float64(len(others))
		}
		for _, x := range others {
			squares += float64((x[i] - mean) * (x[i] - mean))
		}
		params[i] = mean - deviations*math.Sqrt(squares/float64(len(others)))
	}
	return params
}

func (m *whole) others(n *node) [][]float64 {
	var others [][]float64
	for _, s := range n.shelves {
		if p := s.parcels[0]; p.update.Params != nil && p.author != n.place {
			others = append(others, p.update.Params)
		}
	}
	return others
}

func (c *crowd) others(n *node) [][]float64 {
	var others [][]float64
	last := -1
	c.Updates(func(from int, u *member.Update) {
		switch {
		case from == int(n.place):
		case from == last:
			others[len(others)-1] = u.Params // is newer
		default:
			others, last = append(others, u.Params), from
		}
	})
	return others
}

// lie is what a liar tells every second node in the place of a vote, and now and
// then of anything else; nil where it tells everyone the same.
func (n *node) lie(p *parcel) *parcel {
	if !n.liar {
		return nil
	}
	r, _ := p.event.(member.Received)
	b, ok := r.Body.(member.Ballot)
	if !ok {
		return n.lieOften(p.number, r.Body)
	}
	if b.Vote.Phase == agree.Proposal {
		b.Vote.Content = []byte("a lie")
		b.Vote.Value = record.CIDOf(b.Vote.Content)
		b.Vote.Valid, b.Vote.Proof = 0, nil
	} else if b.Vote.Value.Defined() {
		b.Vote.Value = record.CID{}
	} else {
		b.Vote.Value = record.CIDOf([]byte("a lie"))
	}
	return n.parcel(p.number, b, 0)
}

// lieOften is a lie in place of one in four records that are no votes.
func (n *node) lieOften(number uint64, body any) *parcel {
	if n.rng.IntN(4) > 0 {
		return nil
	}
	switch b := body.(type) {
	case task.Enrolment:
		b.Moments.Count++
		body = b
	case task.Update:
		b.Params = slices.Clone(b.Params)
		b.Params[0]++
		body = b
	case task.Evaluation:
		b.Local, b.Federated = b.Federated, b.Local
		body = b
	default:
		return nil
	}
	lie := n.parcel(number, body, 0)
	r := lie.event.(member.Received)
	lie.cid = record.CIDOf(append(lie.cid.Bytes(), "a lie"...)) // which may be all that tells them apart
	r.CID, lie.update.CID = lie.cid, lie.cid
	lie.event = r
	return lie
}
