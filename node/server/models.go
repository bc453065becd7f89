package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"village/node/api"
	"village/node/ingest"
	"village/node/portable"
	"village/node/tasks"
	"village/protocol/learn"
	"village/protocol/record"
	"village/protocol/task"
)

func (s *Server) listModels(ctx context.Context, _ api.None) (api.Models, error) {
	list, err := s.Tasks.ListModels(ctx)
	return api.Models{Schema: "village.model.list/v1", Models: list}, err
}

func (s *Server) verifyModel(ctx context.Context, cid record.CID) (api.Verified, error) {
	s.Tasks.AwaitCertificate(ctx, cid)
	_, v, err := s.Models.Evidence(ctx, cid)
	v.Schema = "village.model.verify/v1"
	return v, err
}

func (s *Server) evidence(ctx context.Context, cid record.CID) (api.Evidence, error) {
	s.Tasks.AwaitCertificate(ctx, cid)
	e, _, err := s.Models.Evidence(ctx, cid)
	return e, err
}

func (s *Server) showModel(ctx context.Context, cid record.CID) (answer api.ShownModel, err error) {
	m, b, err := s.Models.Get(ctx, cid)
	if err != nil {
		return answer, err
	}
	answer = api.ShownModel{
		Schema:       "village.model.show/v1",
		ModelSummary: api.ModelSummary{CID: cid, Task: m.Task, Name: m.Name, Model: m.Spec.Kind, Bytes: uint64(len(b))},
		Encoding:     m.Encoding, Scaling: m.Scaling, Columns: m.Encoding.Names(),
	}
	answer.Weight, answer.Bias = m.Weights()
	answer.Hidden, answer.Lineage = m.Spec.Hidden, s.Models.Lineage(ctx, m)
	if m.Parent != nil {
		answer.Parent = *m.Parent
	}
	return answer, nil
}

// reported is a model's report, with the models that it goes on from.
func (s *Server) reported(ctx context.Context, cid record.CID) (tasks.Report, error) {
	r, err := s.Tasks.Report(ctx, cid)
	if err == nil {
		r.Lineage = s.Models.Lineage(ctx, r.Model)
	}
	return r, err
}

func (s *Server) report(ctx context.Context, cid record.CID) (answer api.Report, err error) {
	r, err := s.reported(ctx, cid)
	if err != nil {
		return answer, err
	}
	answer = api.ReportOf(r.Results)
	answer.Schema, answer.Report = "village.model.report/v1", r.Artifact
	for i := range answer.Contributions {
		// Whoever has not enrolled has told its name elsewhere.
		if c := &answer.Contributions[i]; c.Name == "" {
			is := s.Datasets.Names()[c.PeerID]
			c.Nation, c.Name = is.Nation, is.Name
		}
	}
	return answer, nil
}

func (s *Server) modelBytes(w http.ResponseWriter, r *http.Request) {
	cid, err := record.ParseCID(r.PathValue("id"))
	if err != nil {
		fail(w, api.Fail(api.CodeUsage, "village model list", "%v", err))
		return
	}
	b, err := s.modelIn(r.Context(), cid, r.URL.Query().Get("form"))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

// modelIn is a model's bytes in one of the forms that it can be exported in.
func (s *Server) modelIn(ctx context.Context, cid record.CID, form string) ([]byte, error) {
	m, b, err := s.Models.Get(ctx, cid)
	if err != nil {
		return nil, err
	}
	switch form {
	case "", api.FormSafetensors:
	case api.FormONNX:
		if b, err = portable.ONNX(m); err != nil {
			err = api.Fail(api.CodeFailed, "village model show "+cid.String(), "%v", err)
		}
	case api.FormCard:
		b, err = s.card(ctx, cid, m)
	default:
		err = api.Fail(api.CodeUsage, "village model export --help", "no model can be exported as %.16q", form)
	}
	return b, err
}

// card is a model's card.
func (s *Server) card(ctx context.Context, cid record.CID, m task.Model) ([]byte, error) {
	r, err := s.reported(ctx, cid)
	if err != nil {
		return nil, err
	}
	o := portable.CardOptions{Task: r.Task}
	for _, d := range s.Datasets.List() {
		if r.Datasets[d.CID] {
			o.Datasets = append(o.Datasets, d)
		}
	}
	text, err := portable.Card(m, r.Results, o)
	return []byte(text), err
}

func (s *Server) predict(ctx context.Context, p api.Predict) (answer api.Predictions, err error) {
	m, _, err := s.Models.Get(ctx, p.Model)
	if err != nil {
		return answer, err
	}
	next := "village model show " + p.Model.String()
	levels := map[string][]string{} // NA may be one that the model knows
	for _, f := range m.Encoding.Features {
		levels[f.Name] = f.Levels
	}
	packed, hints, err := ingest.File(p.Path, ingest.Options{Columns: p.Columns, Levels: levels})
	if err != nil {
		return answer, api.Fail(api.CodeFailed, next, "%v", err)
	}
	table := packed.Table()
	complete, at, left := m.Encoding.Complete(table, false)
	answer = api.Predictions{
		Schema: "village.model.predict/v1", CID: p.Model, Classes: append([]string{}, m.Encoding.Classes...),
		Predictions: make([]string, len(table.Rows)), Probabilities: make([][]float64, len(table.Rows)),
		Incomplete: len(table.Rows) - len(at), Hints: append([]string{}, hints...), // never null
	}
	for _, why := range slices.Sorted(maps.Keys(left)) {
		answer.Hints = append(answer.Hints, fmt.Sprintf("%d rows: %s", left[why], why))
	}
	if m.Personal != learn.NoPart || p.Own {
		own, err := s.Tasks.Own(ctx, p.Model, m)
		switch {
		case err != nil && p.Own:
			return answer, api.Fail(api.CodeFailed, next, "%v", err)
		case err != nil:
			answer.Hints = append(answer.Hints, fmt.Sprintf("the model's %s is each node's own, and zero here: %v", m.Personal, err))
		default:
			m = own
		}
	}
	probabilities, err := m.Predict(complete)
	switch {
	case err != nil && answer.Incomplete > 0:
		return answer, api.Fail(api.CodeFailed, next, "%v (the %d rows with empty cells are not counted)", err, answer.Incomplete)
	case err != nil:
		return answer, api.Fail(api.CodeFailed, next, "%v", err)
	}
	for i := range answer.Probabilities {
		answer.Probabilities[i] = []float64{}
	}
	for i, row := range probabilities {
		if len(m.Encoding.Classes) == 0 {
			answer.Predictions[at[i]] = strconv.FormatFloat(row[0], 'g', -1, 64)
			continue
		}
		answer.Predictions[at[i]], answer.Probabilities[at[i]] = m.Encoding.Classes[m.Class(row)], row
	}
	return answer, nil
}
