package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"village/node/api"
	"village/node/home"
	"village/node/table"
	"village/protocol/record"
	"village/protocol/task"
)

const listTasks = "village task list"

func newTask(a *app) *cobra.Command {
	return group("task", "Tasks: what is trained, by whom and how",
		newTaskPropose(a), newTaskContinue(a), newTaskList(a), newTaskShow(a), newTaskJoin(a), newTaskLeave(a), newTaskWatch(a))
}

func newTaskPropose(a *app) *cobra.Command {
	q := api.Propose{Settings: task.Defaults()}
	q.L2 = &q.Settings.L2
	var file string
	var nodes []string
	var within time.Duration
	cmd := &cobra.Command{
		Use: "propose", Short: "Publish a task for the named nodes to train",
		Long: `Publish a task for the named nodes to train.

A feature is a column, or a column with a recipe by which every node cleans it:
COL|STEP|STEP. The steps are
  missing CODE      cells with this code are missing, as 0 for cholesterol
  drop              rows with a missing cell are left out (without any recipe)
  fill VALUE        a number or level takes the place of a missing cell
  mean, median      the same with what the datasets' manifests say
  level             the same with the commonest level
  indicator         one more column, 1 where the cell was missing
  other LEVEL       what an unknown level counts as, which is refused else
  clip LO HI, times F, abs, log1p, cyclic PERIOD, ordinal A < B < C
as in --features 'age,chol|missing 0|median|indicator,hour|cyclic 24'.

With --auto the nodes choose the model, its size and how it is trained by
themselves: they train many candidates side by side, drop half of them time and
again by their loss on rows held back, and the last one is the task's.`, Args: need(),
	}
	cmd.RunE = publishing(a, cmd, func(cmd *cobra.Command, _ []string) (_ api.Propose, err error) {
		if file != "" {
			other := ""
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if f.Name != "file" && cmd.InheritedFlags().Lookup(f.Name) == nil {
					other = f.Name
				}
			})
			if other != "" {
				return q, usage(cmd, "--file says all of a task; --%s cannot stand beside it", other)
			}
			if q, err = readTask(file); err != nil {
				return q, err
			}
		} else if q.Nodes, err = parseNodeIDs(cmd, nodes); err != nil {
			return q, err
		}
		q.Seconds = max(q.Seconds, within.Seconds())
		switch {
		case q.Name == "":
			err = usage(cmd, "the task needs a name (--name)")
		case q.Target == "":
			err = usage(cmd, "the task needs the column to predict (--target)")
		case len(q.Nodes) == 0:
			err = usage(cmd, "the task needs the nodes that may take part (--nodes PEER-ID,...); see 'village peer list' and 'village id'")
		}
		return q, err
	}, api.ProposeTask.Ask)
	f := cmd.Flags()
	f.StringVar(&q.Name, "name", "", "name of the task")
	f.StringVar(&q.Target, "target", "", "column to predict")
	f.StringSliceVar(&q.Features, "features", nil, "columns to predict it from (else all that the nodes' datasets share)")
	f.StringSliceVar(&nodes, "nodes", nil, "peer IDs of the nodes that may take part")
	f.StringVar(&q.Sensitive, "sensitive", "", "column by whose levels the report tells groups apart")
	for _, k := range task.Table {
		settingFlag(f, k, &q.Settings, k.Help)
	}
	f.IntVar(&q.Auto, "auto", 0, "have the nodes choose among so many models and ways to train them (16 if no number is given)")
	f.Lookup("auto").NoOptDefVal = "16"
	f.DurationVar(&within, "within", 0, "time that a node's local steps may take in all; slow nodes make fewer (0 = any)")
	f.StringVar(&file, "file", "", "TOML file with all of this, keys with _ for -")
	return cmd
}

// publishing is asking for a task to be published.
func publishing[Q any](a *app, cmd *cobra.Command, read func(*cobra.Command, []string) (Q, error), ask func(context.Context, *api.Client, Q) (api.Proposed, error)) func(*cobra.Command, []string) error {
	return asking(a, read, func(ctx context.Context, client *api.Client, q Q) (api.Proposed, error) {
		v, err := ask(ctx, client, q)
		if v.Warning != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+table.Text(v.Warning))
		}
		return v, err
	}, func(w io.Writer, v api.Proposed) error {
		fmt.Fprintln(cmd.ErrOrStderr(), "next, at each named node: village task join "+v.CID.String())
		_, err := fmt.Fprintln(w, v.CID)
		return err
	})
}

func newTaskContinue(a *app) *cobra.Command {
	var q api.Continue
	var given task.Settings
	var nodes []string
	cmd := &cobra.Command{
		Use: "continue MODEL", Short: "Publish a task that goes on from a model, with new rows",
		Long: `Publish a task that goes on from a model, with new rows: each node adds its new
rows under the dataset's name (village dataset add says how far they have drifted)
and joins. Everything is as in the model's task but what a flag says. The report
sets the new model beside the old one; it is promoted where it is not worse.`,
		Args: need("a MODEL"), ValidArgsFunction: a.modelCIDs(),
	}
	cmd.RunE = publishing(a, cmd, func(cmd *cobra.Command, args []string) (_ api.Continue, err error) {
		q.Rounds, q.LocalSteps, q.LearningRate = given.Rounds, given.LocalSteps, given.LearningRate
		if q.Model, err = parseCID(args[0], listModels); err == nil {
			q.Nodes, err = parseNodeIDs(cmd, nodes)
		}
		return q, err
	}, api.ContinueTask.Ask)
	f := cmd.Flags()
	f.StringVar(&q.Name, "name", "", "name of the task (else that of the model)")
	f.StringVar(&q.Description, "description", "", "what is new")
	f.StringSliceVar(&nodes, "nodes", nil, "peer IDs of the nodes that may take part (else as before)")
	for _, k := range task.Table {
		switch k.Name {
		case "rounds", "local-steps", "learning-rate":
			settingFlag(f, k, &given, k.Help+" (0 = as before)")
		}
	}
	return cmd
}

// settingFlag adds the flag of a setting, whose default is the value that s has.
func settingFlag(f *pflag.FlagSet, k task.Setting, s *task.Settings, help string) {
	switch p := k.At(s).(type) {
	case *uint64:
		f.Uint64Var(p, k.Name, *p, help)
	case *float64:
		f.Float64Var(p, k.Name, *p, help)
	case *bool:
		f.BoolVar(p, k.Name, *p, help)
	case *string:
		f.StringVar(p, k.Name, *p, help)
	case *[]int:
		f.IntSliceVar(p, k.Name, *p, help)
	default:
		panic(fmt.Sprintf("a setting of type %T", p))
	}
}

// readTask reads a task file of at most 1 MiB.
func readTask(name string) (q api.Propose, err error) {
	f, err := os.Open(name)
	if err != nil {
		return q, api.Fail(api.CodeUsage, "village task propose --help", "cannot read the task: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return q, err
	}
	if err := home.DecodeTOML(b, name, &q); err != nil {
		return q, api.Fail(api.CodeUsage, "edit "+api.Quote(name), "%v", err)
	}
	return q, nil
}

func newTaskList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tasks of the federation", Args: need(),
		RunE: listingNamed(a, api.ListTasks.Ask, table.Tasks),
	}
}

func newTaskShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show CID", Short: "Show a task and how far each of its nodes is", Args: need("a CID"),
		ValidArgsFunction: a.taskCIDs(),
		RunE:              showing(a, listTasks, api.ShowTask.Ask, table.Task),
	}
}

func newTaskJoin(a *app) *cobra.Command {
	var dataset string
	cmd := &cobra.Command{
		Use: "join CID", Short: "Take part in a task with a dataset of this node", Args: need("a CID"),
		ValidArgsFunction: a.taskCIDs(),
	}
	cmd.RunE = asking(a, func(_ *cobra.Command, args []string) (q api.Join, err error) {
		if q.Task, err = parseCID(args[0], listTasks); err == nil && dataset != "" {
			q.Dataset, err = parseCID(dataset, listDatasets+" --mine")
		}
		return q, err
	}, api.JoinTask.Ask, func(w io.Writer, v api.Joined) error {
		a.hint(cmd, "village task watch "+v.Task.String())
		_, err := fmt.Fprintf(w, "joined with dataset %s: %d rows to train, %d to test\n", v.Dataset, v.TrainRows, v.TestRows)
		return err
	})
	cmd.Flags().StringVar(&dataset, "dataset", "", "CID of the dataset (else the only own one that fits)")
	cmd.RegisterFlagCompletionFunc("dataset", a.datasetCIDs(own))
	return cmd
}

func newTaskLeave(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "leave CID", Short: "End this node's part in a task for good", Args: need("a CID"),
		ValidArgsFunction: a.taskCIDs(),
		RunE: showing(a, listTasks, api.LeaveTask.Ask, func(w io.Writer, _ api.Left) error {
			_, err := fmt.Fprintln(w, "left; the others go on without this node's updates")
			return err
		}),
	}
}

func newTaskWatch(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "watch CID", Short: "Follow a task until it is done", Args: need("a CID"),
		ValidArgsFunction: a.taskCIDs(),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			cid, err := parseCID(args[0], listTasks)
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if a.json {
				lines := json.NewEncoder(out)
				return client.WatchTask(cmd.Context(), cid, func(t api.ShownTask) error {
					t.Schema = schema(cmd)
					return lines.Encode(t)
				})
			}
			live := newLiveLine(out)
			var model record.CID
			err = client.WatchTask(cmd.Context(), cid, func(t api.ShownTask) error {
				model = t.ModelCID
				return live.set(table.Progress(t.TaskSummary, table.TaskNames(t)))
			})
			live.end()
			if err == nil && model.Defined() {
				a.hint(cmd, "village model report "+model.String())
			}
			return err
		}),
	}
}

// liveLine shows a line that changes: in its place on a terminal, else one
// after the other.
type liveLine struct {
	w     io.Writer
	width int // of the terminal, 0 where there is none
	last  string
}

func newLiveLine(w io.Writer) *liveLine {
	l := &liveLine{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		l.width = 80
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			l.width = width
		}
	}
	return l
}

func (l *liveLine) set(s string) (err error) {
	if s == l.last {
		return nil
	}
	l.last = s
	if l.width == 0 {
		_, err = fmt.Fprintln(l.w, s)
		return err
	}
	if utf8.RuneCountInString(s) >= l.width {
		s = string([]rune(s)[:l.width-1])
	}
	_, err = fmt.Fprint(l.w, "\r"+s+strings.Repeat(" ", l.width-1-utf8.RuneCountInString(s)))
	return err
}

// end leaves the last line standing, in full.
func (l *liveLine) end() {
	if l.width > 0 && l.last != "" {
		fmt.Fprint(l.w, "\r"+l.last+"\n")
	}
}
