package record_test

import (
	"bytes"
	"errors"
	"fmt"

	"village/protocol/record"
)

// A node signs what it has to say, any value that dag-cbor can hold; whoever gets
// the bytes checks them before believing a word.
func Example() {
	budapest := key(1) // of 32 bytes of 01, so that the output is the same every time
	said, err := record.Sign(budapest, "blue-heron", record.KindManifest, "heart", 1, map[string]any{"rows": 303})
	if err != nil {
		panic(err)
	}
	fmt.Println(said.CID)

	heard, err := record.Open(said.Bytes, "blue-heron")
	if err != nil {
		panic(err)
	}
	var manifest struct {
		Rows uint64 `cbor:"rows"`
	}
	if err := record.Decode(heard.Payload, &manifest); err != nil {
		panic(err)
	}
	fmt.Println(heard.Author, "has", manifest.Rows, "rows in", heard.Subject)

	forged := bytes.Replace(said.Bytes, []byte("heart"), []byte("heard"), 1)
	_, err = record.Open(forged, "blue-heron")
	fmt.Println("forged:", errors.Is(err, record.ErrSignature))
	// Output:
	// bafyreiabtk2exzuknllos67a6c3rdganswmcx74znprd3woy6u5o5oow7e
	// 12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5 has 303 rows in heart
	// forged: true
}

// Of each slot, which is a kind, a subject and an author, the highest number
// counts; of updates the two highest are kept.
func ExampleSlot() {
	for number := range uint64(2) {
		r, err := record.Sign(key(1), "blue-heron", record.KindUpdate, "task", number+1, "parameters")
		if err != nil {
			panic(err)
		}
		fmt.Println(r.Kind, r.Number, "of", r.Slot.Group(), "beside", r.Kind.Keep()-1, "other")
	}
	// Output:
	// update 1 of task beside 1 other
	// update 2 of task beside 1 other
}
