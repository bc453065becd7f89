package node

import (
	"errors"
	"path/filepath"

	"village/node/api"
	"village/node/home"
	"village/storage"
)

// CheckStore tells what can be read of the store of a home whose daemon does not
// run.
func CheckStore(h *home.Home) (api.Store, error) {
	return examined(h, h.StoreDir(), func() (storage.Report, error) { return storage.Check(h.StoreDir()) })
}

// SalvageStore makes a store in another directory of what can be read of a home's.
func SalvageStore(h *home.Home, to string) (api.Store, error) {
	to, err := filepath.Abs(to)
	if err != nil {
		return api.Store{}, err
	}
	return examined(h, to, func() (storage.Report, error) { return storage.Salvage(h.StoreDir(), to) })
}

func examined(h *home.Home, path string, examine func() (storage.Report, error)) (v api.Store, err error) {
	if err := h.Lock(); err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, h.Unlock()) }()
	r, err := examine()
	if err != nil {
		return v, api.Fail(api.CodeFailed, "village store check", "%v", err)
	}
	v = api.Store{
		Path: path, Files: []api.StoreFile{}, Records: r.Records, Datasets: r.Rows, Blocks: r.Blocks, Facts: r.Private,
		Lost: append([]string{}, r.Lost...),
	}
	for _, f := range r.Files {
		v.Files = append(v.Files, api.StoreFile{Name: f.Name, Bytes: uint64(f.Bytes), Problem: f.Problem})
	}
	return v, nil
}
