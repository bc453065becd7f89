package node

import (
	"context"
	"errors"

	"village/protocol/member"
	"village/protocol/record"
)

// Follow has look see the machine of a task, at once where the task is known here
// and then after everything that has moved it, until look has seen enough. Look
// must be quick, and neither change the machine nor call the node. It fails where
// the task cannot move here, ctx ends or the node closes.
func (n *Node) Follow(ctx context.Context, task record.CID, look func(*member.Member) (enough bool)) error {
	for {
		changed := n.watch()
		enough, halted := false, ""
		err := n.ask(ctx, func() {
			if run := n.runs[task]; run != nil {
				enough, halted = look(run.member), run.err
			}
		})
		switch {
		case err != nil:
			return err
		case enough:
			return nil
		case halted != "":
			return errors.New(halted)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.quit.Done():
			return errors.New("the daemon is stopping")
		}
	}
}
