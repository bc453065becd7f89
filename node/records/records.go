// Package records is the way of every record into a node and out of it: a record
// that comes in is decoded, checked, made durable and handed to whoever it
// concerns; one that goes out is signed, checked as peers will check it, made
// durable and then sent.
package records

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"village/node/api"
	"village/node/log"
	"village/node/p2p"
	"village/protocol/contact"
	"village/protocol/dataset"
	"village/protocol/member"
	"village/protocol/record"
	"village/protocol/task"
	"village/storage"
)

// maxByAuthor is how many manifests, and how many tasks, of one author a node
// holds, however small they are: it keeps what they say in memory.
const maxByAuthor = 1000

var (
	errUnknownTask = errors.New("task is not known")
	errUnknownKind = errors.New("kind of record is not known")

	// ErrLost is why a book signs nothing beside a certain record.
	ErrLost = errors.New("the disk has lost a record that this node has signed")
	// ErrListening is why a book signs nothing, see [Book.Listen].
	ErrListening error = api.Fail(api.CodeFailed, "village status", "the disk of this node may have lost records that the node has signed, and peers are asked for them before anything new is signed; try again in a minute")
)

// Network carries records between nodes; it is a [p2p.Network].
type Network interface {
	// Publish gossips a record.
	Publish(record.Record) error
	// Deliver waits until a peer has stored a record, and returns how many have.
	Deliver(context.Context, record.Record) int
	// SyncSoon compares with the peers what is held.
	SyncSoon()
}

// Config is what a book needs.
type Config struct {
	Key        ed25519.PrivateKey
	Federation string
	Store      *storage.Store
	Log        *log.Log
	// AuthorBytes is how much the node holds of one author's records, so that nobody
	// can fill its disk, and StrangersBytes how much of all together whom it does not
	// know: whom its operator has not named, and who is in no task that it is
	// enrolled in.
	AuthorBytes, StrangersBytes uint64
	Knows                       func(record.NodeID) bool // whom the operator has named
}

// Book knows the tasks by which records are checked, and reads and writes all
// records of a node.
type Book struct {
	Config
	open    chan struct{} // closed by Open
	network Network
	deliver func(record.Record, any)
	listens atomic.Bool

	mu      sync.RWMutex
	tasks   map[record.CID]task.Task
	closed  map[record.CID]bool    // tasks whose final set is decided on
	beacons map[record.Slot]uint64 // newest numbers
	fellows map[record.NodeID]bool // of the tasks that the node is enrolled in
}

// New returns a book that knows the tasks in the store. [Book.Receive] waits
// until [Book.Start].
func New(c Config) *Book {
	b := &Book{
		Config: c, open: make(chan struct{}),
		tasks: map[record.CID]task.Task{}, closed: map[record.CID]bool{}, beacons: map[record.Slot]uint64{}, fellows: map[record.NodeID]bool{},
	}
	for _, r := range c.Store.Records(record.KindTask) {
		t, err := task.TaskOf(r)
		if err != nil {
			c.Log.Fail(fmt.Errorf("the store holds task %s, which this program refuses: %w", r.CID, err))
			continue
		}
		b.tasks[r.CID] = t
	}
	for _, r := range c.Store.Records(record.KindEnrolment) {
		b.meet(r)
	}
	return b
}

// meet notes whom the node is enrolled in a task with.
func (b *Book) meet(r record.Record) {
	if r.Kind != record.KindEnrolment || r.Author != b.self() {
		return
	}
	id, _ := record.ParseCID(r.Subject) // which was checked
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, node := range b.tasks[id].Nodes {
		b.fellows[node] = true
	}
}

func (b *Book) self() record.NodeID { return record.NodeIDOf(b.Key.Public().(ed25519.PublicKey)) }

func (b *Book) knows(id record.NodeID) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.fellows[id] || b.Knows(id)
}

// Start lets records in and out. Deliver is called with each new record and its
// decoded body once it is durable, from several goroutines.
func (b *Book) Start(n Network, deliver func(record.Record, any)) {
	b.network, b.deliver = n, deliver
	close(b.open)
}

// Listen has the book sign nothing: the disk may have lost an own record, and another
// one in its place would be proof of a lie.
func (b *Book) Listen() { b.listens.Store(true) }

// Resume has the book sign again.
func (b *Book) Resume() { b.listens.Store(false) }

// Listening says whether the book signs nothing.
func (b *Book) Listening() bool { return b.listens.Load() }

// Task returns a task whose record is held.
func (b *Book) Task(id record.CID) (task.Task, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t, ok := b.tasks[id]
	return t, ok
}

// Close ends the updates of a task: further ones would push out of the store
// those that its model is made of.
func (b *Book) Close(task record.CID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed[task] = true
}

// Receive is the way of a record that a peer sent: p2p has checked its size,
// form, federation, signature and membership; here it is decoded, checked, made
// durable and handed on. It rejects only what every honest node must reject; what
// depends on the own state is ignored.
func (b *Book) Receive(ctx context.Context, _ record.NodeID, r record.Record) p2p.Verdict {
	select {
	case <-b.open:
	case <-ctx.Done():
		return p2p.Ignore
	}
	if b.Store.Has(r.CID) || b.isStale(r) {
		return p2p.Ignore
	}
	content, err := b.Decode(r)
	switch {
	case errors.Is(err, errUnknownTask):
		b.network.SyncSoon()
		return p2p.Ignore
	case errors.Is(err, errUnknownKind):
		return p2p.Ignore
	case err != nil:
		b.Log.Warn("refused a record", "kind", r.Kind, "author", r.Author, "error", err)
		return p2p.Reject
	}
	if r.Kind == record.KindBeacon { // says something of this moment alone
		if !b.isNewest(r) {
			return p2p.Ignore
		}
		b.handOn(r, content)
		return p2p.Accept
	}
	if err := b.tooMuch(r); err != nil {
		b.Log.Fail(err, "author", r.Author)
		return p2p.Ignore
	}
	outcome, err := b.Store.PutRecord(r)
	if err != nil {
		b.Log.Fail(fmt.Errorf("cannot store a record: %w", err))
		return p2p.Ignore
	}
	switch outcome {
	case storage.Stored:
		b.handOn(r, content)
		return p2p.Accept
	case storage.Equivocation:
		b.Log.Fail(fmt.Errorf("%s has signed two records for one place (%s %d of %s); both are kept as proof", r.Author, r.Kind, r.Number, r.Subject), "author", r.Author)
		other, _, _ := b.Store.Contradicts(r.CID)
		b.handOn(r, member.Equivocation{Kind: r.Kind, Records: [2]record.CID{r.CID, other}})
		b.handOnOther(r, content)
		return p2p.Accept // so that whoever has been told the other one learns of it
	case storage.Proven:
		b.handOnOther(r, content)
	}
	return p2p.Ignore
}

// handOnOther gives on what contradicts a record that is held, where the others may
// have decided on it.
func (b *Book) handOnOther(r record.Record, content any) {
	if r.Kind == record.KindEnrolment {
		b.handOn(r, content)
	}
}

// Sign signs a record of the own and decodes it as peers will: what they would
// refuse is refused here.
func (b *Book) Sign(kind record.Kind, subject string, number uint64, body any) (record.Record, any, error) {
	if b.Listening() {
		return record.Record{}, nil, ErrListening
	}
	r, err := record.Sign(b.Key, b.Federation, kind, subject, number, body)
	if err != nil {
		return r, nil, err
	}
	if r.Group() != record.Catalogue && b.Store.Misses(r.Author, subject) {
		return r, nil, fmt.Errorf("%w for %s; until a peer gives it back, another one could contradict it", ErrLost, subject)
	}
	content, err := b.Decode(r)
	return r, content, err
}

// Send gossips a record that is durable, or need not be.
func (b *Book) Send(r record.Record) {
	if err := b.network.Publish(r); err != nil {
		b.Log.Warn("gossip refused a record; peers will pull it", "kind", r.Kind, "error", err)
	}
}

// Announce makes an own record durable, hands it on and sends it.
func (b *Book) Announce(r record.Record, content any) error {
	if _, err := b.Store.PutRecord(r); err != nil {
		return fmt.Errorf("cannot store the record: %w", err)
	}
	b.handOn(r, content)
	b.Send(r)
	return nil
}

// Deliver waits until a peer has stored a record, and returns how many have.
func (b *Book) Deliver(ctx context.Context, r record.Record) int { return b.network.Deliver(ctx, r) }

// Bytes reads records from the store. Like all of a task's bodies, a list is
// never nil, which would be encoded in another way than an empty one.
func (b *Book) Bytes(cids []record.CID) ([][]byte, error) {
	list := make([][]byte, 0, len(cids))
	for _, cid := range cids {
		r, err := b.Store.Record(cid)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", cid, err)
		}
		list = append(list, r.Bytes)
	}
	return list, nil
}

// Decode reads what a record says and checks it, against its task where it has
// one.
func (b *Book) Decode(r record.Record) (any, error) {
	switch r.Kind {
	case record.KindContact:
		return contact.Of(r)
	case record.KindManifest:
		return dataset.ManifestOf(r)
	case record.KindTask:
		return task.TaskOf(r)
	case record.KindEnrolment, record.KindUpdate, record.KindEvaluation, record.KindLeave, record.KindBeacon,
		record.KindProposal, record.KindPrevote, record.KindPrecommit, record.KindSeal:
	default:
		return nil, errUnknownKind // of a newer program
	}
	id, err := record.ParseCID(r.Group())
	if err != nil {
		return nil, err
	}
	t, known := b.Task(id)
	if !known {
		return nil, errUnknownTask
	}
	switch r.Kind {
	case record.KindEnrolment:
		return task.EnrolmentOf(r, t)
	case record.KindUpdate:
		return task.UpdateOf(r, t)
	case record.KindEvaluation:
		return task.EvaluationOf(r, t)
	case record.KindLeave:
		return task.LeaveOf(r, t)
	case record.KindBeacon:
		return task.BeaconOf(r, t)
	case record.KindSeal:
		topic, seal, err := task.SealOf(r, id, t)
		return member.Certificate{Topic: topic, Content: seal.Content}, err
	default:
		topic, vote, err := task.VoteOf(r, id, t)
		return member.Ballot{Topic: topic, Vote: vote}, err
	}
}

// isStale says whether a record no longer says anything: a beacon before the newest
// one, or an update of a task that is closed.
func (b *Book) isStale(r record.Record) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	switch r.Kind {
	case record.KindBeacon:
		return r.Number <= b.beacons[r.Slot]
	case record.KindUpdate:
		id, err := record.ParseCID(r.Group())
		return err == nil && b.closed[id]
	}
	return false
}

// isNewest notes a beacon that was checked, if none after it has come. So what is
// kept of beacons grows with the tasks and their nodes, and not with what is sent.
func (b *Book) isNewest(r record.Record) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Number <= b.beacons[r.Slot] {
		return false
	}
	b.beacons[r.Slot] = r.Number
	return true
}

// tooMuch refuses what is more than a node holds of others.
func (b *Book) tooMuch(r record.Record) error {
	if r.Author == b.self() { // its own come back from peers where the disk has lost them
		return nil
	}
	if (r.Kind == record.KindManifest || r.Kind == record.KindTask) && len(b.Store.Newest(r.Slot)) == 0 && b.Store.Slots(r.Kind, r.Author) >= maxByAuthor {
		return fmt.Errorf("%s has published more than %d records of kind %q; further ones are ignored", r.Author, maxByAuthor, r.Kind)
	}
	size := uint64(len(r.Bytes))
	own, all := b.Store.BytesOf(r.Author)
	if own+size > b.AuthorBytes {
		return fmt.Errorf("the records of %s have more than %d MiB, and further ones are ignored; author_mib in config.toml allows more", r.Author, b.AuthorBytes>>20)
	}
	if all+size <= b.StrangersBytes || b.knows(r.Author) {
		return nil // which is nearly always so, and costs nothing to tell
	}
	for author, bytes := range b.Store.RecordBytes() {
		if !b.knows(author) {
			size += bytes
		}
	}
	if size > b.StrangersBytes {
		return fmt.Errorf("the records of strangers have more than %d MiB, and further ones are ignored; name those that you want with village member add or village peer add, or set strangers_mib in config.toml", b.StrangersBytes>>20)
	}
	return nil
}

// handOn gives a durable record to whoever it concerns.
func (b *Book) handOn(r record.Record, content any) {
	if t, ok := content.(task.Task); ok {
		b.mu.Lock()
		b.tasks[r.CID] = t
		b.mu.Unlock()
		defer b.network.SyncSoon() // for what others have said of it
	}
	b.meet(r)
	b.deliver(r, content)
}
