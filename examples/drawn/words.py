"""The words that the script prints into pictures. The model learns to read these and no others."""

WORDS = """
add age air ant apple arm art ask baby back bag ball band bank bear bed bee bell best bird blue boat body
book bow box boy bread brick bus busy cake camp cap car card cat chair chat cheese city class clock cloud
coat cold cook corn cow cube cup dad dance dark day deep desk dog door dream dress drink drum duck ear
earth east easy egg end exit eye face farm fast father fire fish five flag floor flower fly food foot
forest four fox free frog fruit game garden gift girl glass goat gold good grass great green hall hand
happy hat head heart hello help hill home honey hope horse hot hotel house ice idea ink jam job joy juice
jump key kind king kite lake lamp leaf left lemon light lion list love lucky lunch map market math menu
milk model money monkey moon more mother mouse movie music name new night nine noon north nose ocean one
open orange paper park party peace pen phone piano pig pink pizza plant play pool pull push queen quick
quiet radio rain red rice right ring river road robot room rose run sale salt sand school sea seven ship
shirt shoe shop sign silver six sky sleep smile snow soap sock song soup south star stop story sugar sun
swim table taxi tea team ten test thank three ticket tiger time today tomato tool town toy train tree
truck turtle two uncle van vision wait walk warm wash watch water west white wind window wolf wood word
work world yellow yes young zebra zero zoo
""".split()
