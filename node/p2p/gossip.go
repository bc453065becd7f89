package p2p

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"village/protocol/record"
)

const (
	// Messages wait in queues of this length (pubsub's own of 32 lose bursts).
	gossipQueue = 1024
	// So many records are judged at the same time. More than the cores, because
	// most of the time is a durable write.
	gossipWorkers = 16
	judgeTime     = 10 * time.Second
)

// joinTopic joins the federation's topic. Records are signed themselves, so
// messages carry neither author nor number nor signature, and their ID is
// their hash. The validator is where records are taken in; so the topic is
// relayed and not subscribed to, and there is no third queue to overflow.
func (n *Network) joinTopic() error {
	params := pubsub.DefaultGossipSubParams()
	params.D, params.Dlo, params.Dhi = 8, 6, 12
	params.IDontWantMessageThreshold = 16 << 10 // below it costs more than it saves

	// Over floodsub every message would go to whoever asks for it so, past the mesh.
	protocols := slices.DeleteFunc(slices.Clone(pubsub.GossipSubDefaultProtocols), func(p protocol.ID) bool { return p == pubsub.FloodSubID })

	score, thresholds := scoring(n.names.topic)
	ps, err := pubsub.NewGossipSub(n.ctx, n.host,
		pubsub.WithGossipSubParams(params),
		pubsub.WithGossipSubProtocols(protocols, pubsub.GossipSubDefaultFeatures),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string {
			sum := sha256.Sum256(m.GetData())
			return string(sum[:])
		}),
		pubsub.WithPeerOutboundQueueSize(gossipQueue),
		pubsub.WithValidateQueueSize(gossipQueue),
		pubsub.WithValidateWorkers(gossipWorkers),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerExchange(false),
		pubsub.WithPeerScore(score, thresholds),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(
			pubsub.NewAllowlistSubscriptionFilter(n.names.topic), 10)),
		pubsub.WithRawTracer(tracer{n}),
		pubsub.WithLogger(slog.New(warnings{n.log.Handler()})),
	)
	if err != nil {
		return fmt.Errorf("starting pubsub: %w", err)
	}
	// Inline: the workers judge one by one, where pubsub would else start a
	// goroutine for every message.
	err = ps.RegisterTopicValidator(n.names.topic, n.validate,
		pubsub.WithValidatorInline(true), pubsub.WithValidatorTimeout(judgeTime))
	if err != nil {
		return fmt.Errorf("starting pubsub: %w", err)
	}
	if n.topic, err = ps.Join(n.names.topic); err != nil {
		return fmt.Errorf("joining the federation's topic: %w", err)
	}
	events, err := n.topic.EventHandler()
	if err != nil {
		return fmt.Errorf("joining the federation's topic: %w", err)
	}
	if _, err := n.topic.Relay(); err != nil {
		return fmt.Errorf("joining the federation's topic: %w", err)
	}
	// What either side published before it knew of the other reached nobody.
	n.spawn(func() {
		for {
			e, err := events.NextPeerEvent(n.ctx)
			if err != nil {
				return
			}
			if e.Type == pubsub.PeerJoin {
				n.joined(e.Peer)
			}
		}
	})
	return nil
}

// joined pulls from a peer that gossip did not reach or come from until now.
func (n *Network) joined(p peer.ID) {
	n.pulls.enqueue(p)
	n.stir()
}

// scoring punishes those who forward what every honest node must refuse: about
// five such messages and a peer is not listened to for minutes. Missing
// deliveries are not punished, they say nothing about an honest small network.
func scoring(topic string) (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	return &pubsub.PeerScoreParams{
			Topics: map[string]*pubsub.TopicScoreParams{topic: {
				TopicWeight:      1,
				TimeInMeshWeight: 0.0027, TimeInMeshQuantum: time.Second, TimeInMeshCap: 3600,
				FirstMessageDeliveriesWeight: 0.5, FirstMessageDeliveriesCap: 40,
				FirstMessageDeliveriesDecay:    pubsub.ScoreParameterDecay(time.Hour),
				InvalidMessageDeliveriesWeight: -20,
				InvalidMessageDeliveriesDecay:  pubsub.ScoreParameterDecay(time.Hour),
			}},
			TopicScoreCap:    30,
			AppSpecificScore: func(peer.ID) float64 { return 0 },
			// Where several nodes behind one address are ordinary, only many are odd.
			IPColocationFactorWeight: -35, IPColocationFactorThreshold: 16,
			IPColocationFactorWhitelist: []*net.IPNet{
				{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
				{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
			},
			BehaviourPenaltyWeight: -15.92, BehaviourPenaltyThreshold: 6,
			BehaviourPenaltyDecay: pubsub.ScoreParameterDecay(10 * time.Minute),
			DecayInterval:         pubsub.DefaultDecayInterval,
			DecayToZero:           pubsub.DefaultDecayToZero,
			RetainScore:           6 * time.Hour,
		}, &pubsub.PeerScoreThresholds{
			GossipThreshold: -50, PublishThreshold: -100, GraylistThreshold: -400,
			AcceptPXThreshold: 1000, OpportunisticGraftThreshold: 1,
		}
}

// Publish gossips a record. One that is larger than [record.MaxGossip] is left
// to pull, which is no error.
func (n *Network) Publish(r record.Record) error {
	n.stir()
	if len(r.Bytes) > record.MaxGossip {
		return nil
	}
	if err := n.topic.Publish(n.ctx, r.Bytes); err != nil {
		return fmt.Errorf("publishing %s: %w", r.CID, err)
	}
	return nil
}

// validate judges a message of the topic.
func (n *Network) validate(ctx context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == n.host.ID() {
		return pubsub.ValidationAccept
	}
	if !n.accounts.spend(from, costRecord) {
		n.dropped.Add(1)
		return pubsub.ValidationIgnore
	}
	if len(m.Data) > record.MaxGossip {
		n.refused.Add(1)
		n.accounts.charge(from, costGarbage)
		return pubsub.ValidationReject
	}
	switch _, j := n.inspect(ctx, from, m.Data); j {
	case stored:
		return pubsub.ValidationAccept
	case rejected, garbage:
		// The score works on messages that arrive from now on; this, on those
		// that wait in the queue already.
		n.accounts.charge(from, costGarbage)
		return pubsub.ValidationReject
	default:
		return pubsub.ValidationIgnore
	}
}

// judgement is what became of bytes that a peer sent.
type judgement int

const (
	stored   judgement = iota // new, and now held
	held                      // held before
	passed                    // ignored
	rejected                  // a record that every honest node must refuse
	garbage                   // not a record of this federation
)

// inspect is the one way in for the bytes of a record, cheap checks first.
func (n *Network) inspect(ctx context.Context, from peer.ID, b []byte) (record.Record, judgement) {
	if !n.work.enter() {
		return record.Record{}, passed
	}
	defer n.work.leave()
	if n.cat.Has(record.CIDOf(b)) {
		return record.Record{}, held
	}
	r, err := record.Open(b, n.names.federation)
	switch {
	case errors.Is(err, record.ErrVersion):
		n.log.Warn("a peer sent a record of a newer version: upgrade this node", "peer", from)
		return record.Record{}, passed
	case err != nil:
		n.refused.Add(1)
		n.log.Warn("refused a record", "peer", from, "error", err)
		return record.Record{}, garbage
	}
	// Member lists differ between nodes for a while after a change, so the
	// bearer of a stranger's record is not blamed.
	sender, ok := nodeID(from)
	if !ok || !n.members.has(r.Author) {
		n.refused.Add(1)
		n.log.Info("refused a record of a node that is not a member", "author", r.Author, "peer", from)
		return r, passed
	}
	switch n.receive(ctx, sender, r) {
	case Accept:
		n.stir()
		return r, stored
	case Reject:
		n.refused.Add(1)
		n.log.Warn("refused a record", "peer", from, "author", r.Author, "kind", r.Kind, "cid", r.CID)
		return r, rejected
	default:
		if n.cat.Has(r.CID) { // another bearer was faster
			return r, held
		}
		return r, passed
	}
}

// warnings passes on what pubsub has to warn of. Whatever else it says, such as
// that it stops, means nothing to an operator.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

// tracer counts what pubsub itself drops and refuses.
type tracer struct{ n *Network }

var _ pubsub.RawTracer = tracer{}

func (t tracer) RejectMessage(_ *pubsub.Message, reason string) {
	switch reason {
	case pubsub.RejectValidationQueueFull, pubsub.RejectValidationThrottled:
		t.n.dropped.Add(1)
	case pubsub.RejectValidationFailed, pubsub.RejectValidationIgnored:
		// counted where it was decided
	default:
		t.n.refused.Add(1)
	}
}

func (t tracer) DropRPC(*pubsub.RPC, peer.ID)         { t.n.dropped.Add(1) }
func (t tracer) UndeliverableMessage(*pubsub.Message) { t.n.dropped.Add(1) }

// Graft: records are passed on within the mesh alone, so what came before the
// two were in each other's went by.
func (t tracer) Graft(p peer.ID, _ string) { t.n.joined(p) }

func (tracer) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (tracer) OnClosedOutboundStream(peer.ID)                       {}
func (tracer) Join(string)                                          {}
func (tracer) Leave(string)                                         {}
func (tracer) Prune(peer.ID, string)                                {}
func (tracer) ValidateMessage(*pubsub.Message)                      {}
func (tracer) DeliverMessage(*pubsub.Message)                       {}
func (tracer) DuplicateMessage(*pubsub.Message)                     {}
func (tracer) ThrottlePeer(peer.ID)                                 {}
func (tracer) RecvRPC(*pubsub.RPC)                                  {}
func (tracer) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (tracer) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
