// What becomes of the products of few rows.
#pragma once

enum What { PLAIN, ADDED, GATED };
