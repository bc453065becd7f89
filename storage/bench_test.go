package storage

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"village/protocol/record"
)

// Durable writes, each of which is on the disk when it returns.
func BenchmarkDurable(b *testing.B) {
	for name, write := range map[string]func(s *Store, i int) error{
		"record": func(s *Store, i int) error {
			_, err := s.PutRecord(signed(b, 1, record.KindManifest, fmt.Sprint(i), 1, random(uint64(i), 1000)))
			return err
		},
		"private": func(s *Store, i int) error { return s.PutPrivate(fmt.Sprint(i), random(uint64(i), 32)) },
		"rows-20k": func(s *Store, i int) error {
			return s.PutRows(record.CIDOf(random(uint64(i), 8)), random(uint64(i), 20<<10))
		},
		"artifact-4M": func(s *Store, i int) error {
			_, _, err := s.AddArtifact(context.Background(), bytes.NewReader(random(uint64(i), 4<<20)))
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir())
			i := 0
			for b.Loop() {
				i++
				if err := write(s, i); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
