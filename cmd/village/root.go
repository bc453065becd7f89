package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"village/node/api"
	"village/node/home"
)

// app holds the flags that every command has.
type app struct {
	home string
	json bool
}

func newRoot(a *app) *cobra.Command {
	version := newVersion(a)
	root := group("village", "Train models together with other nations, without a coordinator",
		newInit(a), newDaemon(a), newID(a), newStatus(a), version,
		newPeer(a), newMember(a), newDataset(a), newTask(a), newModel(a), newStore(a), newSim(a), newDemo(a),
	)
	root.SilenceErrors = true
	root.SilenceUsage = true
	asked := root.Flags().Bool("version", false, "show the version of this program")
	root.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > 0:
			return unknownCommand(cmd, args[0])
		case *asked:
			return version.RunE(version, nil)
		}
		return cmd.Help()
	}
	root.PersistentFlags().StringVar(&a.home, "home", "", "directory of the node (else $VILLAGE_HOME, else in the XDG data directory)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "answer with one JSON object")
	root.SetFlagErrorFunc(flagError)
	return root
}

// group makes a command that has nothing but commands under it.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				var names []string
				for _, v := range cmd.Commands() {
					names = append(names, v.Name())
				}
				return usage(cmd, "%s needs one of: %s", cmd.CommandPath(), strings.Join(names, ", "))
			}
			return unknownCommand(cmd, args[0])
		},
	}
	c.AddCommand(verbs...)
	return c
}

// usage is an error in how a command was called.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return api.Fail(api.CodeUsage, cmd.CommandPath()+" --help", format, args...)
}

func unknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	if near := home.Nearest(word, names); near != "" {
		return api.Fail(api.CodeUsage, cmd.CommandPath()+" "+near, "unknown command %q for %q; did you mean %q?", word, cmd.CommandPath(), near)
	}
	return usage(cmd, "unknown command %q for %q", word, cmd.CommandPath())
}

func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		add := func(f *pflag.Flag) { names = append(names, f.Name) }
		cmd.Flags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
		if near := home.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			return usage(cmd, "%v; did you mean --%s?", err, near)
		}
	}
	return usage(cmd, "%v", err)
}

// need accepts exactly the named arguments.
func need(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usage(cmd, "unexpected argument %q", args[len(names)])
		}
		if len(args) < len(names) {
			return usage(cmd, "%s needs %s", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		}
		return nil
	}
}

// action wraps what a command does, so that its errors are told from those in
// how it was called.
func action(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return api.AsError(err)
		}
		return nil
	}
}

// dir is the home that the command is for.
func (a *app) dir() (string, error) {
	if a.home != "" {
		return filepath.Abs(a.home)
	}
	if dir := os.Getenv("VILLAGE_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "village"), nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", api.Fail(api.CodeUsage, "village --home DIR", "no home directory: %v", err)
	}
	return filepath.Join(dir, ".local", "share", "village"), nil
}

// sameHome adds --home to a command that is to be tried next, where this one
// was given it. What is not a command alone stays as it is.
func (a *app) sameHome(next string) string {
	if a.home == "" || !strings.HasPrefix(next, "village ") || strings.Contains(next, ", ") ||
		strings.Contains(next, "--home") || strings.HasSuffix(next, "--help") {
		return next
	}
	return next + " --home " + api.Quote(a.home)
}

// hint tells people what to try next.
func (a *app) hint(cmd *cobra.Command, next string) {
	if !a.json {
		fmt.Fprintln(cmd.ErrOrStderr(), "next: "+a.sameHome(next))
	}
}

// load opens the home.
func (a *app) load() (*home.Home, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	return home.Load(dir)
}

// client connects to the daemon of the home.
func (a *app) client() (*api.Client, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	if err := home.Check(dir); err != nil {
		return nil, err
	}
	return api.Dial(dir)
}
