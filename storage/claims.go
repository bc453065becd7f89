package storage

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"village/protocol/record"
	"village/storage/journal"
)

// Badger opens a store of which it can read a part, and says nothing of the rest.
// So a journal beside it claims what must be there. What is put is durable in the
// database before it is claimed, and claimed before it is acknowledged; what is
// replaced under one name is no longer claimed before that begins. A crash in
// between leaves what nobody has claimed, which the next Open claims.

// journalName is the journal's file in the store's directory.
const journalName = "journal"

// The kinds of entries in the journal, which begin the names of their claims.
const (
	claimRecord   = 'r' // dag-cbor of a recordClaim
	claimSealed   = 's' // a seal, and the key at which the value with that seal stands
	claimArtifact = 'a' // the CID of an artifact that was added here
	claimDoubt    = '?' // nothing: more may be missing than is claimed
	claimGone     = '-' // the name of a claim that no longer holds
)

// recordClaim says that a record, or so many newer ones that its slot is full,
// must be there.
type recordClaim struct {
	Author  record.NodeID `cbor:"author"`
	CID     record.CID    `cbor:"cid"`
	Kind    record.Kind   `cbor:"kind"`
	Number  uint64        `cbor:"number"`
	Subject string        `cbor:"subject"`
}

func (c recordClaim) slot() record.Slot {
	return record.Slot{Kind: c.Kind, Subject: c.Subject, Author: c.Author}
}

// claim is what an entry says.
type claim struct {
	name   string // of two claims with one name the later one counts
	kind   byte
	record recordClaim
	key    []byte // of a sealed value
	seal   []byte
	cid    cid.Cid // of an artifact
}

func claimOf(e journal.Entry) (c claim, err error) {
	c.kind = e.Kind
	var name []byte
	switch e.Kind {
	case claimRecord:
		err = record.Decode(e.Body, &c.record)
		name = c.record.CID.Bytes()
	case claimSealed:
		if len(e.Body) <= sha256.Size {
			return c, errors.New("a claim without a key")
		}
		c.seal, c.key = e.Body[:sha256.Size], e.Body[sha256.Size:]
		name = c.key
	case claimArtifact:
		c.cid, err = cid.Cast(e.Body)
		name = e.Body
	case claimDoubt:
	case claimGone:
		c.name = string(e.Body)
		return c, nil
	default:
		return c, fmt.Errorf("no claim has kind %d", e.Kind)
	}
	c.name = string(e.Kind) + string(name)
	return c, err
}

func recordClaimOf(slot record.Slot, number uint64, c record.CID) recordClaim {
	return recordClaim{Author: slot.Author, CID: c, Kind: slot.Kind, Number: number, Subject: slot.Subject}
}

func claimRecordOf(slot record.Slot, number uint64, c record.CID) (journal.Entry, error) {
	b, err := record.Encode(recordClaimOf(slot, number, c))
	return journal.Entry{Kind: claimRecord, Body: b}, err
}

// claimValue claims the sealed value at key.
func claimValue(key, sealed []byte) journal.Entry {
	return journal.Entry{Kind: claimSealed, Body: append(bytes.Clone(sealed[:sha256.Size]), key...)}
}

func unclaimValue(key []byte) journal.Entry {
	return journal.Entry{Kind: claimGone, Body: append([]byte{claimSealed}, key...)}
}

// living returns those of a journal's entries that still hold. What this program
// cannot read is not its to forget.
func living(entries []journal.Entry) []journal.Entry {
	newest := map[string]int{} // the last entry of each name
	claims := make([]claim, len(entries))
	var keep []int
	for i, e := range entries {
		c, err := claimOf(e)
		switch claims[i] = c; {
		case err != nil:
			keep = append(keep, i)
		case c.kind == claimGone:
			delete(newest, c.name)
		default:
			newest[c.name] = i
		}
	}
	slots := map[record.Slot][]int{}
	for _, i := range newest {
		if c := claims[i]; c.kind == claimRecord {
			slots[c.record.slot()] = append(slots[c.record.slot()], i)
		} else {
			keep = append(keep, i)
		}
	}
	for slot, in := range slots {
		slices.SortFunc(in, func(a, b int) int {
			return cmp.Or(cmp.Compare(claims[b].record.Number, claims[a].record.Number), cmp.Compare(b, a))
		})
		// One number stands in a slot once: the later entry took the other's place.
		in = slices.CompactFunc(in, func(a, b int) bool { return claims[a].record.Number == claims[b].record.Number })
		keep = append(keep, in[:min(len(in), slot.Kind.Keep())]...)
	}
	slices.Sort(keep)
	live := make([]journal.Entry, 0, len(keep))
	for _, i := range keep {
		live = append(live, entries[i])
	}
	return live
}

// values are a store's, or those that can be read of one that is damaged.
type values interface {
	// get returns a value as it is stored, whole or not, or [ErrNotFound].
	get(key []byte) ([]byte, error)
	has(key []byte) (bool, error)
}

// what names the thing that a claim is about, as [Store.Damaged] does.
func (c claim) what() string {
	switch c.kind {
	case claimRecord:
		return "record " + c.record.CID.String()
	case claimArtifact:
		return "artifact " + c.cid.String()
	}
	return nameOf(c.key)
}

// compare holds what is there against what is claimed. It calls lack for everything
// that is gone, or of which an older version has come back, and fails where the
// store could not be asked.
func compare(claims []claim, x *index, in values, lack func(claim)) error {
	for _, c := range claims {
		whole, err := true, error(nil)
		switch c.kind {
		case claimRecord:
			whole = x.covers(c.record)
		case claimSealed:
			var sealed []byte
			if sealed, err = in.get(c.key); lost(err) {
				whole, err = false, nil
				break
			}
			_, bad := unseal(c.key, sealed)
			whole = bad == nil && bytes.Equal(sealed[:sha256.Size], c.seal)
			if err == nil && whole && c.key[0] == spaceRows {
				whole, err = hasChunks(c.key, sealed, in)
			}
		case claimArtifact:
			whole, err = hasArtifact(c.cid, in)
		}
		if err != nil {
			return err
		}
		if !whole {
			lack(c)
		}
	}
	return nil
}

// covers says whether a claimed record is there, or no longer has to be: its slot
// holds one of its number, or is full of newer ones.
func (x *index) covers(c recordClaim) bool {
	newer := 0
	for _, h := range x.slots[c.slot()] {
		if h.cid == c.CID || h.number == c.Number {
			return true
		}
		if h.number > c.Number {
			newer++
		}
	}
	return newer >= c.Kind.Keep()
}

// hasChunks says whether all chunks of rows are there, whose header is intact.
func hasChunks(key, sealed []byte, in values) (bool, error) {
	h, err := parseRowsHeader(key, sealed)
	if err != nil {
		return false, nil
	}
	for i := uint64(0); i*maxValue < h.size; i++ {
		if there, err := in.has(chunkKey(key[1:], h, uint32(i))); err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

// hasArtifact says whether all blocks of an artifact are there. Leaves are not
// looked into.
func hasArtifact(c cid.Cid, in values) (bool, error) {
	for todo := []cid.Cid{c}; len(todo) > 0; {
		c, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if c.Type() == cid.Raw {
			if there, err := in.has(blockKey(c)); err != nil || !there {
				return false, err
			}
			continue
		}
		data, err := in.get(blockKey(c))
		if lost(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if sum := sha256.Sum256(data); !bytes.Equal(sum[:], digest(c)) {
			return false, nil
		}
		block, err := blocks.NewBlockWithCid(data, c)
		if err != nil {
			return false, nil
		}
		node, err := merkledag.DecodeProtobufBlock(block)
		if err != nil {
			return false, nil
		}
		for _, l := range node.Links() {
			todo = append(todo, l.Cid)
		}
	}
	return true, nil
}

// claimsOf reads entries, without those of a newer program.
func claimsOf(entries []journal.Entry) (claims []claim) {
	for _, e := range living(entries) {
		if c, err := claimOf(e); err == nil {
			claims = append(claims, c)
		}
	}
	return claims
}

// reconcile compares the store with its journal, names what is lost, and claims
// what is there and was not claimed.
func (s *Store) reconcile(found journal.Found) error {
	claims := claimsOf(found.Entries)
	lacking, err := s.lacking(claims)
	if err != nil {
		return err
	}
	if len(lacking) > 0 || hasFile(s.dir, asideName) {
		rescued, err := s.rescue(claims, lacking)
		if err != nil {
			return err
		}
		if rescued {
			if err := s.loadRecords(); err != nil {
				return err
			}
			if lacking, err = s.lacking(lacking); err != nil {
				return err
			}
		}
	}
	aside := filepath.Join(s.dir, asideName)
	if found.New && hasFile(s.dir, asideName) { // nobody can say what of it is lost
		s.markDamaged("some of what is in " + aside)
		if err := s.Doubt(); err != nil {
			return err
		}
	} else if len(lacking) == 0 {
		if err := os.RemoveAll(aside); err != nil {
			return err
		}
	}
	for _, c := range lacking {
		s.markDamaged(c.what())
		if c.kind == claimRecord {
			s.absent[c.record.CID] = c.record
		}
	}
	claimed := map[string]bool{}
	for _, c := range claims {
		claimed[c.name] = true
		s.doubtful = s.doubtful || c.kind == claimDoubt
	}
	var news []journal.Entry
	for slot, in := range s.index.slots {
		for _, h := range in {
			if claimed[string(claimRecord)+string(h.cid.Bytes())] {
				continue
			}
			e, err := claimRecordOf(slot, h.number, h.cid)
			if err != nil {
				return err
			}
			news = append(news, e)
		}
	}
	for _, space := range []byte{spaceRows, spacePrivate, spaceEvidence} {
		err := s.scan([]byte{space}, true, func(key, value []byte) error {
			if _, err := unseal(key, value); err == nil && !claimed[string(claimSealed)+string(key)] {
				news = append(news, claimValue(key, value))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(news, batchKeys) {
		if err := s.journal.Append(chunk...); err != nil {
			return err
		}
	}
	if len(found.Damaged) > 0 {
		if err := s.Doubt(); err != nil {
			return err
		}
		return s.journal.Compact()
	}
	return nil
}

// lacking returns the claims that do not hold, and removes older values that have
// come back: they are no answer.
func (s *Store) lacking(claims []claim) (lacking []claim, err error) {
	var stale []op
	err = compare(claims, &s.index, s, func(c claim) {
		lacking = append(lacking, c)
		if c.kind == claimSealed && c.key[0] != spaceRows {
			stale = append(stale, op{key: c.key})
		}
	})
	if err == nil {
		err = s.commitAll(stale)
	}
	return lacking, err
}

// Misses says whether a record with this subject that author has signed is claimed
// and not there. In its place, or beside it, author must sign nothing.
func (s *Store) Misses(author record.NodeID, subject string) bool {
	s.damage.Lock()
	defer s.damage.Unlock()
	for _, c := range s.absent {
		if c.Author == author && c.Subject == subject {
			return true
		}
	}
	return false
}

// Highest is the highest number in a slot, of what is there and of what is claimed;
// 0 where there is none.
func (s *Store) Highest(slot record.Slot) (n uint64) {
	s.index.RLock()
	for _, h := range s.index.slots[slot] {
		n = max(n, h.number)
	}
	s.index.RUnlock()
	s.damage.Lock()
	defer s.damage.Unlock()
	for _, c := range s.absent {
		if c.slot() == slot {
			n = max(n, c.Number)
		}
	}
	return n
}

// regained takes note of artifacts that are whole again.
func (s *Store) regained() error {
	for _, name := range s.Damaged() {
		text, ok := strings.CutPrefix(name, "artifact ")
		if !ok {
			continue
		}
		if c, err := cid.Decode(text); err == nil {
			if whole, err := hasArtifact(c, s); err != nil {
				return err
			} else if whole {
				s.repaired(name)
			}
		}
	}
	return nil
}
