package storage

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"

	"village/protocol/record"
	"village/protocol/task"
)

// Outcome says what became of a record that was put.
type Outcome int

const (
	Stored       Outcome = iota // held from now on
	Known                       // already held
	Old                         // its slot is full of newer ones
	Equivocation                // the slot holds another record with its number: now both are a proof
	Proven                      // as Equivocation, of an author against whom there is a proof in the slot
)

func (o Outcome) String() string {
	return [...]string{"stored", "known", "old", "equivocation", "proven"}[o]
}

// index is what memory keeps of the records: where each stands, not what it says.
type index struct {
	sync.RWMutex
	slots  map[record.Slot][]held // newest first
	slotOf map[record.CID]record.Slot
	groups map[string]*group
	proofs map[record.CID]half
	bytes  map[record.NodeID]uint64 // of the records in slots, by author

	allBytes uint64 // of these
}

// half is one of the two records of a proof of equivocation. They are members of
// their group, so that a proof comes to everyone.
type half struct {
	key   []byte
	slot  record.Slot
	other record.CID
}

type held struct {
	cid    record.CID
	number uint64
	bytes  int
}

type group struct {
	members []record.CID // sorted by bytes
	digest  [32]byte
	fresh   bool // digest is that of members
}

func byBytes(a, b record.CID) int { return strings.Compare(a.KeyString(), b.KeyString()) }

func (x *index) reset() {
	x.slots, x.slotOf, x.groups = map[record.Slot][]held{}, map[record.CID]record.Slot{}, map[string]*group{}
	x.proofs, x.bytes, x.allBytes = map[record.CID]half{}, map[record.NodeID]uint64{}, 0
}

func (x *index) add(slot record.Slot, h held) {
	x.slots[slot] = append(x.slots[slot], h)
	slices.SortFunc(x.slots[slot], func(a, b held) int {
		return cmp.Compare(b.number, a.number)
	})
	x.slotOf[h.cid] = slot
	x.bytes[slot.Author] += uint64(h.bytes)
	x.allBytes += uint64(h.bytes)
	x.join(slot.Group(), h.cid)
}

func (x *index) join(name string, c record.CID) {
	g := x.groups[name]
	if g == nil {
		g = &group{}
		x.groups[name] = g
	}
	if i, ok := slices.BinarySearchFunc(g.members, c, byBytes); !ok {
		g.members = slices.Insert(g.members, i, c)
	}
	g.fresh = false
}

// prove adds the halves of a proof against a slot.
func (x *index) prove(slot record.Slot, a, b record.CID) {
	x.disprove(a)
	for i, c := range []record.CID{a, b} {
		x.proofs[c] = half{evidenceKey(slot, byte(i)), slot, []record.CID{b, a}[i]}
		x.join(slot.Group(), c)
	}
}

// disprove removes both halves of a proof, if it is one.
func (x *index) disprove(c record.CID) {
	h, ok := x.proofs[c]
	if !ok {
		return
	}
	for _, c := range []record.CID{c, h.other} {
		delete(x.proofs, c)
		if _, held := x.slotOf[c]; !held {
			x.part(h.slot.Group(), c)
		}
	}
}

func (x *index) remove(c record.CID) {
	slot, ok := x.slotOf[c]
	if !ok {
		return
	}
	delete(x.slotOf, c)
	x.slots[slot] = slices.DeleteFunc(x.slots[slot], func(h held) bool {
		if h.cid == c {
			x.bytes[slot.Author] -= uint64(h.bytes)
			x.allBytes -= uint64(h.bytes)
		}
		return h.cid == c
	})
	if x.bytes[slot.Author] == 0 {
		delete(x.bytes, slot.Author)
	}
	if len(x.slots[slot]) == 0 {
		delete(x.slots, slot)
	}
	if _, half := x.proofs[c]; !half {
		x.part(slot.Group(), c)
	}
}

func (x *index) part(name string, c record.CID) {
	g := x.groups[name]
	if i, ok := slices.BinarySearchFunc(g.members, c, byBytes); ok {
		g.members = slices.Delete(g.members, i, i+1)
	}
	g.fresh = false
	if len(g.members) == 0 {
		delete(x.groups, name)
	}
}

// ofKind names the records of a kind, of certain authors alone where any are named.
func (x *index) ofKind(kind record.Kind, authors []record.NodeID) (cids []record.CID) {
	of := make(map[record.NodeID]bool, len(authors))
	for _, id := range authors {
		of[id] = true
	}
	for slot, in := range x.slots {
		if slot.Kind != kind || len(of) > 0 && !of[slot.Author] {
			continue
		}
		for _, h := range in {
			cids = append(cids, h.cid)
		}
	}
	return cids
}

func recordKey(c record.CID) []byte { return append([]byte{spaceRecord}, c.Bytes()...) }

// evidenceKey names the proof against a slot. One proof per slot is enough, and
// keeps an author who signs without end from filling the disk.
func evidenceKey(slot record.Slot, which byte) []byte {
	h := sha256.New()
	for _, field := range [][]byte{[]byte(slot.Kind), []byte(slot.Subject), slot.Author[:]} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
		h.Write(field)
	}
	return append(h.Sum([]byte{spaceEvidence}), which)
}

// evidenceName is the same for both halves of a proof.
func evidenceName(key []byte) string {
	return fmt.Sprintf("evidence %x", key[1:min(len(key), 1+sha256.Size)])
}

// loadRecords builds the index and drops what does not hash to its name.
func (s *Store) loadRecords() error {
	s.index.reset()
	var bad []op
	err := s.scan([]byte{spaceRecord}, true, func(key, value []byte) error {
		r, err := parseRecord(key, value)
		if err != nil {
			bad = append(bad, op{key: key})
			s.markDamaged("record " + recordName(key))
			return nil
		}
		s.index.add(r.Slot, held{r.CID, r.Number, len(r.Bytes)})
		return nil
	})
	if err != nil {
		return err
	}
	proofs, err := s.Evidence()
	if err != nil {
		return err
	}
	for _, p := range proofs {
		s.index.prove(p[0].Slot, p[0].CID, p[1].CID)
	}
	return s.commitAll(bad)
}

// parseRecord reads a stored record. Its signature was checked before it was put.
func parseRecord(key, value []byte) (record.Record, error) {
	c, err := cid.Cast(key[1:])
	if err != nil {
		return record.Record{}, fmt.Errorf("record key: %w", err)
	}
	return record.Trusted(value, record.CID{Cid: c})
}

func recordName(key []byte) string {
	c, err := cid.Cast(key[1:])
	if err != nil {
		return fmt.Sprintf("with the key %x", key[1:])
	}
	return c.String()
}

// PutRecord stores a record whose signature has been checked. It is durable when
// this returns [Stored]. A slot keeps the newest [record.Kind.Keep] records,
// whatever the order in which they come; an older one goes away in the same
// transaction. So does one of two seals of one decision, the same at every node: an
// author that has lost its seal certifies it again. On [Equivocation] the record that came first stays, and both are
// kept as evidence, once per slot.
func (s *Store) PutRecord(r record.Record) (Outcome, error) {
	r, err := record.Trusted(r.Bytes, r.CID)
	if err != nil {
		return 0, err
	}
	s.putting.Lock()
	defer s.putting.Unlock()

	s.index.RLock()
	inSlot := slices.Clone(s.index.slots[r.Slot])
	s.index.RUnlock()
	for _, h := range inSlot {
		if h.cid == r.CID {
			return Known, nil
		}
		if h.number != r.Number {
			continue
		}
		first, err := s.readRecord(h.cid)
		switch {
		case err == nil && task.SameDecision(first, r):
			if byBytes(first.CID, r.CID) < 0 {
				return Known, nil // of two that say the same, all nodes keep one
			}
		case err == nil:
			return s.putEvidence(first, r)
		case lost(err):
			s.dropRecord(h.cid)
			inSlot = slices.DeleteFunc(inSlot, func(o held) bool { return o.cid == h.cid })
		default:
			return 0, err
		}
		break // one number stands in a slot at most once
	}
	keep := r.Kind.Keep()
	if len(inSlot) >= keep && r.Number < inSlot[keep-1].number {
		return Old, nil
	}
	ops := []op{{recordKey(r.CID), r.Bytes}}
	var gone []held
	if len(inSlot) >= keep {
		gone = inSlot[keep-1:]
	}
	for _, h := range gone {
		ops = append(ops, op{key: recordKey(h.cid)})
	}
	claim, err := claimRecordOf(r.Slot, r.Number, r.CID)
	if err != nil {
		return 0, err
	}
	if err := s.commit(ops...); err != nil {
		return 0, err
	}
	if err := s.journal.Append(claim); err != nil {
		return 0, err
	}
	s.index.Lock()
	s.index.add(r.Slot, held{r.CID, r.Number, len(r.Bytes)})
	for _, h := range gone {
		s.index.remove(h.cid)
	}
	s.index.Unlock()
	s.returned(r)
	return Stored, nil
}

// returned takes note that a record is here, and others need not be any more.
func (s *Store) returned(r record.Record) {
	s.repaired("record " + r.CID.String())
	s.damage.Lock()
	defer s.damage.Unlock()
	for cid, c := range s.absent {
		if c.slot() == r.Slot && s.index.covers(c) {
			delete(s.absent, cid)
			delete(s.damaged, "record "+cid.String())
		}
	}
}

func (s *Store) putEvidence(first, second record.Record) (Outcome, error) {
	a, b := evidenceKey(first.Slot, 0), evidenceKey(first.Slot, 1)
	_, errA := s.getSealed(a)
	_, errB := s.getSealed(b)
	if err := errors.Join(errA, errB); err == nil || !lost(err) {
		return Proven, err
	}
	sealedA, sealedB := seal(a, first.Bytes), seal(b, second.Bytes)
	if err := s.unclaim(a, b); err != nil {
		return 0, err
	}
	if err := s.commit(op{a, sealedA}, op{b, sealedB}); err != nil {
		return 0, err
	}
	if err := s.journal.Append(claimValue(a, sealedA), claimValue(b, sealedB)); err != nil {
		return 0, err
	}
	s.index.Lock()
	s.index.prove(first.Slot, first.CID, second.CID)
	s.index.Unlock()
	s.repaired(evidenceName(a))
	return Equivocation, nil
}

// Contradicts returns the record that contradicts the record named c, where there
// is a proof of both, and whether that came first.
func (s *Store) Contradicts(c record.CID) (other record.CID, second, ok bool) {
	s.index.RLock()
	defer s.index.RUnlock()
	h, ok := s.index.proofs[c]
	return h.other, ok && h.key[len(h.key)-1] == 1, ok
}

// Evidence returns, for every slot in which an author equivocated, the record
// that came first and one that contradicts it. Both signatures are checked.
func (s *Store) Evidence() ([][2]record.Record, error) {
	type proof struct {
		name string
		pair [2]record.Record
		good int
	}
	var proofs []proof
	err := s.scan([]byte{spaceEvidence}, true, func(key, value []byte) error {
		name := evidenceName(key)
		if len(proofs) == 0 || proofs[len(proofs)-1].name != name {
			proofs = append(proofs, proof{name: name})
		}
		p := &proofs[len(proofs)-1]
		if b, err := unseal(key, value); err == nil && p.good < 2 {
			if r, err := record.Open(b, ""); err == nil {
				p.pair[p.good] = r
				p.good++
			}
		}
		return nil
	})
	var pairs [][2]record.Record
	for _, p := range proofs {
		if p.good == 2 {
			pairs = append(pairs, p.pair)
		} else {
			s.markDamaged(p.name)
		}
	}
	return pairs, err
}

// lost says that a value is gone or not what was written, rather than that the
// store could not be asked.
func lost(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) }

func (s *Store) readRecord(c record.CID) (record.Record, error) {
	s.index.RLock()
	h, half := s.index.proofs[c]
	s.index.RUnlock()
	b, err := []byte(nil), error(nil)
	if half {
		b, err = s.getSealed(h.key)
	}
	if !half || err != nil {
		b, err = s.get(recordKey(c))
	}
	if err != nil {
		return record.Record{}, err
	}
	r, err := record.Trusted(b, c)
	if err != nil {
		return record.Record{}, ErrDamaged
	}
	return r, nil
}

// dropRecord forgets a damaged record, so that it can be stored again; putting
// is held.
func (s *Store) dropRecord(c record.CID) {
	s.index.Lock()
	s.index.disprove(c) // and [Store.Evidence] names the damage
	slot, known := s.index.slotOf[c]
	if known {
		i := slices.IndexFunc(s.index.slots[slot], func(h held) bool { return h.cid == c })
		s.damage.Lock()
		s.absent[c] = recordClaimOf(slot, s.index.slots[slot][i].number, c)
		s.damage.Unlock()
		s.index.remove(c)
	}
	s.index.Unlock()
	if known {
		s.markDamaged("record " + c.String())
	}
	// Should this fail, the next Open finds it again.
	_ = s.commit(op{key: recordKey(c)})
}

// pick returns the records that choose names under the index's lock.
func (s *Store) pick(choose func() []record.CID) []record.Record {
	chosen := func() []record.CID {
		s.index.RLock()
		defer s.index.RUnlock()
		return choose()
	}
	cids := chosen()
	records := make([]record.Record, 0, len(cids))
	for _, c := range cids {
		r, err := s.readRecord(c)
		if err != nil {
			break
		}
		records = append(records, r)
	}
	if len(records) == len(cids) {
		return records
	}
	// A record is missing: it is damaged, or a newer one has replaced it since
	// the index was read. Without a writer under way only the first is left.
	s.putting.Lock()
	defer s.putting.Unlock()
	records = records[:0]
	for _, c := range chosen() {
		r, err := s.readRecord(c)
		if err == nil {
			records = append(records, r)
		} else if lost(err) {
			s.dropRecord(c)
		}
	}
	return records
}

// Newest returns the records of a slot, newest first.
func (s *Store) Newest(slot record.Slot) []record.Record {
	return s.pick(func() []record.CID {
		var cids []record.CID
		for _, h := range s.index.slots[slot] {
			cids = append(cids, h.cid)
		}
		return cids
	})
}

// Record returns the record named c, [ErrNotFound], or [ErrDamaged] where it was
// held once and the disk has lost it.
func (s *Store) Record(c record.CID) (record.Record, error) {
	found := s.pick(func() []record.CID {
		if s.index.has(c) {
			return []record.CID{c}
		}
		return nil
	})
	if len(found) == 1 {
		return found[0], nil
	}
	s.life.RLock()
	defer s.life.RUnlock()
	if s.db == nil {
		return record.Record{}, s.down
	}
	if s.isDamaged("record " + c.String()) {
		return record.Record{}, fmt.Errorf("record %s: %w; a peer may serve it again", c, ErrDamaged)
	}
	return record.Record{}, fmt.Errorf("record %s: %w", c, ErrNotFound)
}

// Has says whether the record named c is held.
func (s *Store) Has(c record.CID) bool {
	s.index.RLock()
	defer s.index.RUnlock()
	return s.index.has(c)
}

func (x *index) has(c record.CID) bool {
	_, held := x.slotOf[c]
	_, half := x.proofs[c]
	return held || half
}

// Records returns the records of a kind, of certain authors alone where any are
// named, ordered by subject, author and number.
func (s *Store) Records(kind record.Kind, of ...record.NodeID) []record.Record {
	records := s.pick(func() []record.CID { return s.index.ofKind(kind, of) })
	slices.SortFunc(records, func(a, b record.Record) int {
		if c := strings.Compare(a.Subject, b.Subject); c != 0 {
			return c
		}
		if c := a.Author.Compare(b.Author); c != 0 {
			return c
		}
		return cmp.Compare(a.Number, b.Number)
	})
	return records
}

// CIDs names all records of a kind, in no order. Nothing is read for it.
func (s *Store) CIDs(kind record.Kind) []record.CID {
	s.index.RLock()
	defer s.index.RUnlock()
	return s.index.ofKind(kind, nil)
}

// Slots is how many slots of a kind hold records of an author.
func (s *Store) Slots(kind record.Kind, author record.NodeID) (n int) {
	s.index.RLock()
	defer s.index.RUnlock()
	for slot := range s.index.slots {
		if slot.Kind == kind && slot.Author == author {
			n++
		}
	}
	return n
}

// RecordBytes is how many bytes of records are held of each author, proofs aside.
func (s *Store) RecordBytes() map[record.NodeID]uint64 {
	s.index.RLock()
	defer s.index.RUnlock()
	return maps.Clone(s.index.bytes)
}

// BytesOf is how many bytes of records are held of an author, and of all together.
func (s *Store) BytesOf(author record.NodeID) (own, all uint64) {
	s.index.RLock()
	defer s.index.RUnlock()
	return s.index.bytes[author], s.index.allBytes
}

// Group returns the CIDs of all held records of a group, sorted by their bytes.
func (s *Store) Group(name string) []record.CID {
	s.index.RLock()
	defer s.index.RUnlock()
	if g := s.index.groups[name]; g != nil {
		return slices.Clone(g.members)
	}
	return nil
}

// Groups returns for every group the SHA-256 over the bytes of its sorted CIDs.
// Two nodes that hold the same records of a group have the same digest of it.
func (s *Store) Groups() map[string][32]byte {
	s.index.Lock()
	defer s.index.Unlock()
	digests := make(map[string][32]byte, len(s.index.groups))
	for name, g := range s.index.groups {
		if !g.fresh {
			h := sha256.New()
			for _, c := range g.members {
				h.Write(c.Bytes())
			}
			h.Sum(g.digest[:0])
			g.fresh = true
		}
		digests[name] = g.digest
	}
	return digests
}

// Damaged names what the disk has lost or changed since it was written, as far
// as it has been read since Open, and has not been stored again.
func (s *Store) Damaged() []string {
	s.damage.Lock()
	defer s.damage.Unlock()
	names := make([]string, 0, len(s.damaged))
	for name := range s.damaged {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *Store) markDamaged(name string) {
	s.damage.Lock()
	defer s.damage.Unlock()
	s.damaged[name] = struct{}{}
}

func (s *Store) repaired(name string) {
	s.damage.Lock()
	defer s.damage.Unlock()
	delete(s.damaged, name)
}

func (s *Store) isDamaged(name string) bool {
	s.damage.Lock()
	defer s.damage.Unlock()
	_, ok := s.damaged[name]
	return ok
}
