// Package learn holds the models, their local steps, and the honest counting of
// how well they do. It has no state and no randomness of its own: the same
// arguments give the same bytes.
package learn
