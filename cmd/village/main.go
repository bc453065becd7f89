// Command village is a node of a federation that trains models without a
// coordinator, and the command line that asks it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"village/node/api"
	"village/node/table"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel() // the first stops cleanly
		<-signals
		os.Exit(api.CodeInterrupted) // the second at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes a command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var e *api.Error
	switch {
	case ctx.Err() != nil:
		e = api.Fail(api.CodeInterrupted, "", "interrupted")
	case !errors.As(err, &e): // of cobra, before the command ran
		e = api.Fail(api.CodeUsage, cmd.CommandPath()+" --help", "%v", err)
	}
	if e.Next == "" && e.Code != api.CodeInterrupted {
		e.Next = cmd.CommandPath() + " --help"
	}
	e.Next = a.sameHome(e.Next)
	// A command line that does not parse may not have come to its --json.
	if a.json || slices.Contains(args, "--json") {
		b, err := json.Marshal(e)
		if err != nil {
			panic(err) // a struct of strings
		}
		fmt.Fprintf(stderr, "%s\n", b)
		return e.Code
	}
	fmt.Fprintln(stderr, "error: "+table.Text(e.Message))
	if e.Next != "" {
		fmt.Fprintln(stderr, "next: "+table.Text(e.Next))
	}
	return e.Code
}
